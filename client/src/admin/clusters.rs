//! Clusters and the brokers in them.

use protocol::body::cluster::ClusterInfo;
use protocol::code::request;
use serde::Serialize;

use super::Admin;
use crate::error::{Error, Result};
use crate::routes::MASTER;

/// One broker of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Broker {
    pub cluster: String,
    pub name: String,
    /// 0 is the master.
    pub id: i64,
    pub address: String,
}

impl Broker {
    pub fn is_master(&self) -> bool {
        self.id == MASTER
    }
}

impl Admin {
    /// Every broker the name server knows, by cluster and name.
    pub async fn brokers(&self) -> Result<Vec<Broker>> {
        let (address, answer) = self
            .ask_name_server(request::GET_BROKER_CLUSTER_INFO, &[])
            .await?;
        let info: ClusterInfo = answer.json(&address)?;
        let mut all = Vec::new();
        for (cluster, names) in &info.cluster_addr_table {
            for name in names {
                let Some(data) = info.broker_addr_table.get(name) else {
                    continue;
                };
                for (id, address) in &data.broker_addrs {
                    all.push(Broker {
                        cluster: cluster.clone(),
                        name: name.clone(),
                        id: *id,
                        address: address.clone(),
                    });
                }
            }
        }
        all.sort();
        Ok(all)
    }

    /// The masters, of one cluster or of all.
    ///
    /// # Errors
    /// [`Error::Illegal`] if there is no such cluster.
    pub async fn masters(&self, cluster: Option<&str>) -> Result<Vec<Broker>> {
        let mut brokers = self.brokers().await?;
        brokers.retain(Broker::is_master);
        if let Some(cluster) = cluster {
            brokers.retain(|broker| broker.cluster == cluster);
            if brokers.is_empty() {
                return Err(Error::Illegal(format!("there is no cluster {cluster}")));
            }
        }
        Ok(brokers)
    }

    /// The masters a change is for: at an address, of a broker name, of a cluster, or all.
    ///
    /// # Errors
    /// [`Error::Illegal`] if nobody is meant.
    pub async fn targets(
        &self,
        broker: Option<&str>,
        cluster: Option<&str>,
    ) -> Result<Vec<Broker>> {
        let Some(broker) = broker else {
            return self.masters(cluster).await;
        };
        let mut brokers = self.brokers().await.unwrap_or_default();
        brokers.retain(|one| one.address == broker || one.name == broker && one.is_master());
        match brokers.is_empty() {
            false => Ok(brokers),
            // A broker that no name server knows can be asked all the same.
            true if broker.contains(':') => Ok(vec![Broker {
                cluster: String::new(),
                name: broker.to_owned(),
                id: MASTER,
                address: broker.to_owned(),
            }]),
            true => Err(Error::Illegal(format!("there is no broker {broker}"))),
        }
    }
}
