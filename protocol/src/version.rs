//! Version numbers of the protocol: the place of a release in RocketMQ's list of all releases.

/// 5.4.0: what OrbitMQ says it speaks.
pub const VERSION: i32 = V5_4_0;

pub const V4_2_0: i32 = 253;
/// From here on a client reads strict JSON where older ones need fastjson's own form.
pub const V4_9_4: i32 = 401;
pub const V4_9_8: i32 = 409;
pub const V5_3_3: i32 = 479;
pub const V5_4_0: i32 = 493;
