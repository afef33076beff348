//! Many consumer groups, each with an offset of its own.

use std::net::SocketAddr;

use serde::Serialize;

use crate::control::Control;
use crate::error::{Error, Result};
use crate::fill;
use crate::wire::{self, Encoding, Reply, request, response};

pub struct Groups {
    count: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    group_name: String,
}

const TOPIC: &str = "scale-groups";
const IN_FLIGHT: usize = 64;

pub fn make(broker: SocketAddr, count: u32) -> Result<Groups> {
    fill::make_topic(broker, TOPIC)?;
    let mut control = Control::connect(broker)?;
    control.pipeline(
        count as usize,
        IN_FLIGHT,
        |index, opaque, out| {
            let group = Group {
                group_name: name(index),
            };
            let body = serde_json::to_vec(&group).expect("a name");
            let code = request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP;
            wire::write_request(out, Encoding::Json, code, opaque, &[], &body);
        },
        |_, reply| accepted("making a group", reply),
    )?;
    control.pipeline(
        count as usize,
        IN_FLIGHT,
        |index, opaque, out| {
            let (group, offset) = (name(index), offset(index).to_string());
            let fields = [
                ("consumerGroup", group.as_str()),
                ("topic", TOPIC),
                ("queueId", "0"),
                ("commitOffset", &offset),
            ];
            let code = request::UPDATE_CONSUMER_OFFSET;
            wire::write_request(out, Encoding::Json, code, opaque, &fields, b"");
        },
        |_, reply| accepted("committing an offset", reply),
    )?;
    Ok(Groups { count })
}

impl Groups {
    /// Every group stands where it was put.
    pub fn check(&self, broker: SocketAddr) -> Result<()> {
        Control::connect(broker)?.pipeline(
            self.count as usize,
            IN_FLIGHT,
            |index, opaque, out| {
                let group = name(index);
                let fields = [
                    ("consumerGroup", group.as_str()),
                    ("topic", TOPIC),
                    ("queueId", "0"),
                ];
                let code = request::QUERY_CONSUMER_OFFSET;
                wire::write_request(out, Encoding::Json, code, opaque, &fields, b"");
            },
            |index, reply| match reply.number("offset") {
                found if found == Some(offset(index)) => Ok(()),
                found => Err(Error::Failed(format!(
                    "{} stands at {found:?} instead of {}",
                    name(index),
                    offset(index)
                ))),
            },
        )
    }
}

fn name(index: usize) -> String {
    format!("scale-group-{index}")
}

/// Different from group to group, and never where a group begins by itself.
fn offset(index: usize) -> u64 {
    index as u64 + 1
}

fn accepted(what: &str, reply: &Reply) -> Result<()> {
    match reply.code {
        response::SUCCESS => Ok(()),
        code => Err(Error::Refused {
            what: what.into(),
            code,
            remark: reply.remark(),
        }),
    }
}
