//! One connection for each address, opened when it is first needed and again after it broke.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::connection::{Asked, Connection};
use crate::error::Result;
use crate::lock::Mutex;

pub(crate) struct Connections {
    by_address: Mutex<HashMap<String, Arc<Slot>>>,
    connect_limit: Duration,
    asked: mpsc::Sender<Asked>,
}

/// Held while connecting, so that many who need the same address connect once.
type Slot = tokio::sync::Mutex<Option<Arc<Connection>>>;

impl Connections {
    pub fn new(connect_limit: Duration, asked: mpsc::Sender<Asked>) -> Connections {
        Connections {
            by_address: Mutex::default(),
            connect_limit,
            asked,
        }
    }

    pub async fn get(&self, address: &str) -> Result<Arc<Connection>> {
        let slot = self
            .by_address
            .lock()
            .entry(address.to_owned())
            .or_default()
            .clone();
        let mut slot = slot.lock().await;
        if let Some(connection) = slot.as_ref().filter(|connection| !connection.is_closed()) {
            return Ok(connection.clone());
        }
        let connection = Connection::open(address, self.connect_limit, self.asked.clone()).await?;
        let connection = Arc::new(connection);
        *slot = Some(connection.clone());
        Ok(connection)
    }

    /// Everything queued on any connection has left when this returns.
    pub async fn flush(&self) {
        let slots: Vec<Arc<Slot>> = self.by_address.lock().values().cloned().collect();
        for slot in slots {
            let connection = slot.lock().await.clone();
            if let Some(connection) = connection {
                connection.flush().await;
            }
        }
    }
}
