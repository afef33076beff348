//! A real broker on what a power cut left: it must start, serve everything promised and nothing wrong, and accept again.

use std::path::Path;

use super::record::{QUEUES, TOPIC};
use super::{Mode, Setting, record};
use crate::broker::Setup;
use crate::ensure;
use crate::error::{Error, Result};
use crate::payload::{self, Number};
use crate::promises::Promises;
use crate::read_back::{Counts, has_topic, read_back};

/// Of the messages that ask whether sends are accepted again.
const PROBE_SENDER: u32 = 1 << 20;
const PROBE_BYTES_MAX: usize = 300;

/// `store` is the store's directory, `work` one for the broker's settings and log. With `check` the
/// broker is stopped in the end and the whole store looked at.
pub fn judge(
    setting: &Setting,
    mode: Mode,
    store: &Path,
    work: &Path,
    promises: &Promises,
    check: bool,
) -> Result<Counts> {
    // Another boot: no window is left.
    let memory = super::memory()?;
    let setup = Setup {
        binary: setting.broker.clone(),
        store: store.to_path_buf(),
        work: work.to_path_buf(),
        port: setting.port,
        settings: record::settings(setting, mode, memory.path()),
    };
    let broker = setup.start()?;
    let judged = (|| {
        let mut client = broker.connect()?;
        // An ASYNC_FLUSH store may forget a topic that is new: its messages are there again as soon as it is.
        let gone = !has_topic(&mut client, TOPIC)?;
        if gone {
            client.create_topic(TOPIC, QUEUES)?;
        }
        let mut counts = read_back(&mut client, TOPIC, QUEUES, promises)?;
        counts.topics_gone = u64::from(gone);
        ensure!(
            !(gone && mode.sync && !promises.is_empty()),
            "TOPIC GONE: its {} promised messages are there, but only once it is made again",
            counts.promised
        );
        client.create_topic(TOPIC, QUEUES)?;
        let mut all = promises.clone();
        for queue in 0..QUEUES {
            let number = Number::new(PROBE_SENDER, u64::from(queue));
            let body = payload::body(number, PROBE_BYTES_MAX);
            let sent = client
                .send_one(TOPIC, queue, body)
                .map_err(Error::io("sending after the cut"))?;
            ensure!(
                sent.code == crate::load::STORED,
                "a send after the cut was answered with {} {}",
                sent.code,
                sent.remark
            );
            let offset = sent.queue_offset.unwrap_or(u64::MAX);
            let queue = crate::promises::Queue {
                topic: TOPIC.into(),
                number: queue,
            };
            let before = all.add(queue, offset, number);
            ensure!(before.is_none(), "offset {offset} was given a second time");
        }
        let after = read_back(&mut client, TOPIC, QUEUES, &all)?;
        // More may appear: a topic that nobody promised was not there before.
        ensure!(
            after.served >= counts.served + u64::from(QUEUES),
            "{} messages after {} and {QUEUES} more",
            after.served,
            counts.served
        );
        Ok(counts)
    })();
    let judged = judged.map_err(|error: Error| {
        Error::Wrong(format!("{error}\nthe broker's log:\n{}", broker.log_tail()))
    });
    if !check || judged.is_err() {
        broker.kill()?;
        return judged;
    }
    let status = broker.stop()?;
    ensure!(
        status.is_some_and(|status| status.success()),
        "the broker did not stop cleanly: {status:?}"
    );
    setup.check()?;
    judged
}
