//! What is wrong: the name servers, the brokers, a topic, a group are looked at, and what is found is said with its
//! cause and what to do about it.

mod group;
mod topic;

use serde::Serialize;

use super::{Admin, Broker};
use crate::error::Error;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Good,
    Warning,
    Bad,
}

/// Something that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub severity: Severity,
    pub what: String,
    /// Why it is so, and what to do; empty if it is good.
    pub advice: String,
}

impl Finding {
    fn good(what: impl Into<String>) -> Finding {
        Finding {
            severity: Severity::Good,
            what: what.into(),
            advice: String::new(),
        }
    }

    fn warning(what: impl Into<String>, advice: impl Into<String>) -> Finding {
        Finding {
            severity: Severity::Warning,
            what: what.into(),
            advice: advice.into(),
        }
    }

    fn bad(what: impl Into<String>, advice: impl Into<String>) -> Finding {
        Finding {
            severity: Severity::Bad,
            ..Finding::warning(what, advice)
        }
    }
}

/// A disk that is fuller than this in percent is close to the broker's own limit.
const DISK_PERCENT_WARNING: f64 = 75.0;
const DISK_PERCENT_BAD: f64 = 90.0;

impl Admin {
    /// Looks at name servers and brokers, and at a topic and a group if they are named.
    pub async fn doctor(&self, topic: Option<&str>, group: Option<&str>) -> Vec<Finding> {
        let mut found = self.look_at_name_servers().await;
        let brokers = match self.brokers().await {
            Ok(brokers) => brokers,
            // Said already, and nothing else can be known.
            Err(_) => return found,
        };
        if brokers.is_empty() {
            found.push(Finding::bad(
                "no broker is registered",
                "'No route info' for every topic. Is a broker running, is its namesrvAddr this name server, and can it \
                 reach it? It registers every 30 s.",
            ));
            return found;
        }
        for broker in &brokers {
            found.extend(self.look_at_broker(broker).await);
        }
        if let Some(topic) = topic {
            found.extend(self.look_at_topic(topic, &brokers).await);
        }
        if let Some(group) = group {
            found.extend(self.look_at_group(group, &brokers).await);
        }
        found
    }

    async fn look_at_name_servers(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        let mut known: Vec<(String, Vec<Broker>)> = Vec::new();
        for address in self.name_servers() {
            let asked = match Admin::new(address) {
                Ok(only) => only.timeout(self.limit).brokers().await,
                Err(error) => Err(error),
            };
            match asked {
                Ok(brokers) => {
                    let count = brokers.len();
                    let what = format!("name server {address} answers and knows {count} brokers");
                    found.push(Finding::good(what));
                    known.push((address.clone(), brokers));
                }
                Err(error) => found.push(Finding::bad(
                    format!("name server {address} does not answer: {error}"),
                    "Is it running, is the port right (9876), does a firewall lie between? Clients use any of the list \
                     that answers.",
                )),
            }
        }
        for pair in known.windows(2) {
            if pair[0].1 != pair[1].1 {
                found.push(Finding::bad(
                    format!("{} and {} know different brokers", pair[0].0, pair[1].0),
                    "A client sees what its name server knows. Every broker must name all name servers in its \
                     namesrvAddr.",
                ));
            }
        }
        found
    }

    async fn look_at_broker(&self, broker: &Broker) -> Vec<Finding> {
        let (name, address) = (&broker.name, &broker.address);
        let runtime = match self.runtime(address).await {
            Ok(runtime) => runtime,
            Err(error @ Error::Connect { .. }) => {
                return vec![Finding::bad(
                    format!("broker {name} cannot be reached at {address}: {error}"),
                    "This is the address it tells clients. If it is running, its brokerIP1 is an address that is not \
                     reachable from here, as within a container: set brokerIP1 to one that is.",
                )];
            }
            Err(error) => {
                return vec![Finding::bad(
                    format!("broker {name} at {address} does not say how it is: {error}"),
                    "It is connected but does not answer: look at its log.",
                )];
            }
        };
        let mut found = Vec::new();
        let health = runtime.get("orbitHealth");
        if !health.is_empty() && health != "ready" {
            found.push(Finding::bad(
                format!("broker {name} is {health}"),
                "It does not take messages. Its log says when and why.",
            ));
        }
        let disk = runtime.rate("commitLogDiskRatio") * 100.0;
        if disk >= DISK_PERCENT_WARNING {
            let what = format!("the disk of broker {name} is {disk:.0} % full");
            let advice =
                "Sends are refused once it is full: less fileReservedTime, or a larger disk.";
            found.push(match disk >= DISK_PERCENT_BAD {
                true => Finding::bad(what, advice),
                false => Finding::warning(what, advice),
            });
        }
        if found.is_empty() {
            let version = runtime.get("brokerVersionDesc");
            found.push(Finding::good(format!(
                "broker {name} at {address} is well ({version})"
            )));
        }
        found
    }
}
