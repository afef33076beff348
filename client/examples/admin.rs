//! What operators do, from a program: makes a topic, looks at a cluster, asks the doctor.
//!
//! `cargo run -p orbitmq-client --example admin -- 127.0.0.1:9876`

use orbitmq_client::Result;
use orbitmq_client::admin::{Admin, NewTopic};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let name_server = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:9876".to_owned());
    let admin = Admin::new(&name_server)?;
    for broker in admin.masters(None).await? {
        admin
            .create_topic(&broker.address, &NewTopic::new("ExampleAdmin").queues(4))
            .await?;
        let runtime = admin.runtime(&broker.address).await?;
        println!(
            "{} takes {} messages a second",
            broker.name,
            runtime.rate("putTps")
        );
    }
    for finding in admin.doctor(Some("ExampleAdmin"), None).await {
        println!("{:?}: {}", finding.severity, finding.what);
    }
    Ok(())
}
