//! Withdrawing a delayed message before it is delivered.

use protocol::Value;
use protocol::code::request;
use protocol::recall;

use super::Producer;
use crate::error::{Error, Result};

impl Producer {
    /// Takes a delayed message back. `handle` is [`Receipt::recall_handle`](super::Receipt) of its send. The answer is the id of the
    /// message; a message that is delivered already is not found out about, nothing happens then.
    ///
    /// # Errors
    /// [`Error::Illegal`] for a handle that is none, [`Error::Refused`] if the broker does not withdraw messages
    /// (`recallMessageEnable=false`, or older than 5.3) or the delivery time has passed.
    pub async fn recall(&self, topic: &str, handle: &str) -> Result<String> {
        self.check_running()?;
        let session = &self.shared.session;
        let broker_name = broker_of(handle)?;
        let topic = session.settings.namespace.wrap(topic);
        let route = self.route(&topic).await?;
        let address = session.address_of_master(&route, &broker_name)?;
        let connection = session.connections.get(&address).await?;
        let fields = [
            ("producerGroup", Value::Str(&self.shared.options.group)),
            ("topic", Value::Str(&topic)),
            ("recallHandle", Value::Str(handle)),
            ("bname", Value::Str(&broker_name)),
        ];
        let limit = self.shared.options.send_limit;
        let answer = connection
            .demand(request::RECALL_MESSAGE, &fields, b"", limit)
            .await?;
        let id = answer.command().fields.string("msgId").unwrap_or_default();
        Ok(id.into_owned())
    }
}

fn broker_of(handle: &str) -> Result<String> {
    let named = recall::decode(handle).map(|handle| handle.broker_name);
    named.ok_or_else(|| Error::Illegal("this is no recall handle".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_names_the_broker_that_holds_the_message() {
        let whole = recall::encode("Orders", "broker-a", 1_700_000_000_000, "7F000001");
        assert_eq!(broker_of(&whole).ok().as_deref(), Some("broker-a"));
        assert!(matches!(broker_of("???"), Err(Error::Illegal(_))));
    }
}
