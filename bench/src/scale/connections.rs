//! Many connections, each a client that has said who it is.

use std::net::SocketAddr;

use rustix::process::{Resource, getrlimit};

use crate::control::Control;
use crate::error::{Error, Result};
use crate::wire::{request, response};

/// File descriptors that either side needs for other things.
const OTHERS: usize = 300;

pub fn open(broker: SocketAddr, wanted: usize) -> Result<Vec<Control>> {
    let count = wanted.min(allowed());
    let mut connections = Vec::with_capacity(count);
    for index in 0..count {
        let mut connection = Control::connect(broker)?;
        introduce(&mut connection, index)?;
        connections.push(connection);
    }
    Ok(connections)
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
