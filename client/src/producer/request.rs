//! Request and reply: a message whose sender waits for the message that answers it. The reply comes straight from
//! the broker that the asker is connected to; it is stored nowhere else.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use protocol::code::response;
use protocol::{Command, properties};
use tokio::sync::oneshot;

use super::Producer;
use super::sending::Target;
use super::upkeep::heartbeat_of;
use crate::compression;
use crate::connection::Asked;
use crate::error::{Error, Result};
use crate::lock::Mutex;
use crate::message::Message;
use crate::message_id::now_ms;
use crate::namespace::Namespace;
use crate::received::Received;

/// Who waits for which reply, by correlation id.
#[derive(Default)]
pub(super) struct Replies {
    waiting: Mutex<HashMap<String, oneshot::Sender<Received>>>,
}

impl Producer {
    /// Sends a message and waits for the reply of whoever consumes it, see [`Message::reply`]. `limit` is for both
    /// together, 1 ms and more.
    ///
    /// # Errors
    /// Those of [`Producer::send`] if the request cannot be sent, [`Error::NoReply`] if nobody replies in time: whether it
    /// was consumed is not known then.
    ///
    /// ```no_run
    /// # async fn run() -> orbitmq_client::Result<()> {
    /// use std::time::Duration;
    /// use orbitmq_client::{Message, Producer};
    ///
    /// let producer = Producer::builder("askers").name_server("127.0.0.1:9876").start().await?;
    /// let reply = producer.request(Message::new("Questions", "6 * 7?"), Duration::from_secs(3)).await?;
    /// println!("{}", String::from_utf8_lossy(&reply.body));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn request(&self, message: Message, limit: Duration) -> Result<Received> {
        let asked_at = tokio::time::Instant::now();
        let correlation = self.shared.session.ids.next();
        let message = message
            .property(properties::CORRELATION_ID, &correlation)
            .property(properties::REPLY_TO_CLIENT, self.client_id())
            .property(properties::TTL, limit.as_millis().to_string());
        let prepared = self.prepare(&message)?;
        self.route(&prepared.topic).await?;
        // A broker passes replies on to those only that it has heard of.
        let heartbeat = heartbeat_of(&self.shared.session, &self.shared.options.group);
        self.shared.session.heartbeat_to_new(&heartbeat, true).await;
        let (sender, replied) = oneshot::channel();
        let replies = &self.shared.replies;
        replies.waiting.lock().insert(correlation.clone(), sender);
        let _forget = Forget {
            replies,
            correlation: &correlation,
        };
        let exchange = async {
            self.send_prepared(&prepared, &Target::InTurn).await?;
            replied.await.map_err(|_| Error::ShutDown)
        };
        match tokio::time::timeout_at(asked_at + limit, exchange).await {
            Ok(result) => result,
            Err(_) => Err(Error::NoReply { after: limit }),
        }
    }
}

/// Nobody waits any more, whichever way the wait ended.
struct Forget<'a> {
    replies: &'a Replies,
    correlation: &'a str,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.replies.waiting.lock().remove(self.correlation);
    }
}

impl Replies {
    /// A broker brings a reply. One that nobody waits for any more is acknowledged all the same.
    pub fn take(&self, asked: &Asked, namespace: &Namespace) {
        match received(&asked.command(), namespace) {
            Ok((correlation, reply)) => {
                if let Some(waiter) = self.waiting.lock().remove(&correlation) {
                    // The asker may have given up this moment.
                    let _ = waiter.send(reply);
                }
                asked.answer(response::SUCCESS, None, b"");
            }
            Err(what) => {
                tracing::debug!(
                    address = asked.address(),
                    what,
                    "a reply that cannot be read"
                );
                asked.answer(response::SYSTEM_ERROR, Some(&what), b"");
            }
        }
    }
}

fn received(
    command: &Command<'_>,
    namespace: &Namespace,
) -> std::result::Result<(String, Received), String> {
    let fields = &command.fields;
    let text = |name: &str| fields.string(name).unwrap_or_default().into_owned();
    let number = |name| fields.i64(name).map_err(|error| error.to_string());
    let properties = fields.string("properties").unwrap_or_default();
    let correlation = properties::get_str(properties.as_bytes(), properties::CORRELATION_ID);
    let correlation = correlation.ok_or("a reply without a correlation id")?;
    let sys_flag = number("sysFlag")?.unwrap_or(0) as i32;
    let host = |name: &str| -> SocketAddr {
        // Java writes a slash before an address.
        let written = text(name);
        let bare = written.trim_start_matches('/').parse();
        bare.unwrap_or_else(|_| (Ipv4Addr::UNSPECIFIED, 0).into())
    };
    let reply = Received::from_parts(
        namespace.unwrap(&text("topic")).into_owned(),
        compression::unpack(command.body, sys_flag)?,
        properties.as_bytes(),
        [
            number("bornTimestamp")?.unwrap_or(0),
            number("storeTimestamp")?.unwrap_or_else(now_ms),
        ],
        [host("bornHost"), host("storeHost")],
    );
    Ok((correlation.to_owned(), reply))
}
