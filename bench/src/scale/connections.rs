//! Many connections, each a client that has said who it is.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use rustix::process::{Resource, getrlimit};

use crate::control::Control;
use crate::error::{Error, Result};
use crate::wire::{request, response};

/// File descriptors that either side needs for other things.
const OTHERS: usize = 300;
/// From one address. The kernel prefers every second port; once those are used up, a connection takes it more than a
/// millisecond, whoever listens.
const PER_ADDRESS: usize = 10_000;

pub fn open(broker: SocketAddr, wanted: usize) -> Result<Vec<Control>> {
    let count = wanted.min(allowed());
    let mut connections = Vec::with_capacity(count);
    for index in 0..count {
        let mut connection = match source(broker, index) {
            Some(source) => Control::connect_from(source, broker)?,
            None => Control::connect(broker)?,
        };
        introduce(&mut connection, index)?;
        connections.push(connection);
    }
    Ok(connections)
}

/// On one machine each side has thousands of addresses. None: the broker is somewhere else.
fn source(broker: SocketAddr, index: usize) -> Option<IpAddr> {
    let IpAddr::V4(address) = broker.ip() else {
        return None;
    };
    let [first, .., last] = address.octets();
    let number = u8::try_from(1 + index / PER_ADDRESS).ok()?;
    let is_here = address.is_loopback() && number < u8::MAX - last;
    is_here.then(|| Ipv4Addr::new(first, 0, 0, last + number).into())
}

/// The broker has the same limit, if it was started beside this program.
fn allowed() -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(limit)
        .unwrap_or(usize::MAX)
        .saturating_sub(OTHERS)
}

/// None was closed, and each is answered.
pub fn check(connections: &mut [Control]) -> Result<()> {
    let mut each = connections.iter_mut().enumerate();
    each.try_for_each(|(index, connection)| introduce(connection, index))
}

fn introduce(connection: &mut Control, index: usize) -> Result<()> {
    let heartbeat = format!(
        r#"{{"clientID":"127.0.0.1@scale-{index}","consumerDataSet":[],"heartbeatFingerprint":0,"producerDataSet":[{{"groupName":"scale-producers"}}],"withoutSub":false}}"#
    );
    let answer = connection.ask(request::HEART_BEAT, &[], heartbeat.as_bytes())?;
    match answer.reply().code {
        response::SUCCESS => Ok(()),
        code => Err(Error::Refused {
            what: format!("the heartbeat of connection {index}"),
            code,
            remark: answer.reply().remark(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_connections_on_one_machine_come_from_several_addresses() {
        let broker = SocketAddr::from(([127, 0, 0, 1], 10_911));
        let of = |index| source(broker, index).map(|source| source.to_string());
        assert_eq!(of(PER_ADDRESS - 1).as_deref(), Some("127.0.0.2"));
        assert_eq!(of(PER_ADDRESS).as_deref(), Some("127.0.0.3"));
        let elsewhere = SocketAddr::from(([10, 0, 0, 1], 10_911));
        assert_eq!(source(elsewhere, 0), None);
    }
}
