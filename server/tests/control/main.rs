//! What operators and clients ask of the coordinator, over the wire of a simulated broker.

mod attempts;
mod begins;
mod cluster;
mod delayed;
mod forbidden;
mod handover;
mod kept;
mod keys;
mod members;
mod orphans;
mod peer;
mod popped;
mod popped_losses;
mod popped_moves;
mod queues;
mod reclaim;
mod relayed;
mod requests;
mod resets;
mod rights;
mod sql;
mod timers;
mod tools;
mod transactions;
