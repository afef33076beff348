//! What survives the end of the process, orderly or not, and what another broker's files hold.

use std::path::Path;
use std::time::Duration;

use protocol::Value;
use protocol::code::{request, response};
use reactor::fs;

use crate::cluster::{Cluster, STORE};
use crate::peer::Peer;

async fn has_topic(peer: &mut Peer, topic: &str) -> bool {
    let fields = [("topic", Value::Str(topic))];
    let answer = peer.ask(request::GET_TOPIC_CONFIG, &fields, &[]).await;
    answer.code == response::SUCCESS
}

fn file(cluster: &mut Cluster, name: &str) -> String {
    let path = Path::new(STORE).join("config").join(name);
    let bytes = cluster.on_disk(move || fs::read(&path).expect("the file is there"));
    String::from_utf8(bytes).expect("JSON is text")
}

#[test]
fn a_topic_that_was_acknowledged_survives_a_kill_in_the_same_moment() {
    let mut cluster = Cluster::start(&[]);
    for round in 0..3 {
        let topic = format!("t{round}");
        cluster.clients(move || async move {
            let mut peer = Peer::connect().await;
            assert_eq!(peer.make_topic(&topic, 3).await.code, response::SUCCESS);
            peer.send(&format!("auto{round}"), "", b"x").await;
        });
        cluster.kill_broker();
        cluster.start_broker();
    }
    cluster.clients(|| async {
        let mut peer = Peer::connect().await;
        for round in 0..3 {
            assert!(has_topic(&mut peer, &format!("t{round}")).await, "{round}");
            assert!(
                has_topic(&mut peer, &format!("auto{round}")).await,
                "{round}"
            );
        }
    });
}

#[test]
fn a_deleted_topic_stays_deleted() {
    let mut cluster = Cluster::start(&[]);
    cluster.clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic("gone", 1).await;
        let fields = [("topic", Value::Str("gone"))];
        let answer = peer
            .ask(request::DELETE_TOPIC_IN_BROKER, &fields, &[])
            .await;
        assert_eq!(answer.code, response::SUCCESS);
    });
    cluster.kill_broker();
    cluster.start_broker();
    cluster.clients(|| async {
        assert!(!has_topic(&mut Peer::connect().await, "gone").await);
    });
}

#[test]
fn tables_are_saved_soon_after_a_change_and_the_journal_goes() {
    let mut cluster = Cluster::start(&[]);
    cluster.clients(|| async {
        Peer::connect().await.make_topic("t", 1).await;
        reactor::sleep(Duration::from_secs(3)).await;
    });
    assert!(file(&mut cluster, "topics.json").contains("\"t\""));
    let journals = cluster.on_disk(|| {
        let names = fs::list(&Path::new(STORE).join("orbit")).expect("there");
        names
            .iter()
            .filter(|name| name.ends_with(".journal"))
            .count()
    });
    assert_eq!(journals, 1, "only the one being written");
    cluster.stop_broker();
    let left = cluster.on_disk(|| fs::list(&Path::new(STORE).join("orbit")).expect("there"));
    assert!(
        !left.iter().any(|name| name.ends_with(".journal")),
        "{left:?}"
    );
}

#[test]
fn offsets_survive_a_stop_at_once_and_a_kill_after_the_interval() {
    let mut cluster = Cluster::start(&[]);
    cluster.clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic("t", 1).await;
        peer.join("a", "g", "t").await;
        assert_eq!(peer.commit("g", "t", 5).await.code, response::SUCCESS);
    });
    cluster.stop_broker();
    cluster.start_broker();
    cluster.clients(|| async {
        let mut peer = Peer::connect().await;
        assert_eq!(peer.committed("g", "t").await.field("offset"), "5");
        peer.commit("g", "t", 9).await;
        reactor::sleep(Duration::from_secs(6)).await;
    });
    cluster.kill_broker();
    cluster.start_broker();
    cluster.clients(|| async {
        let mut peer = Peer::connect().await;
        assert_eq!(peer.committed("g", "t").await.field("offset"), "9");
    });
    assert!(file(&mut cluster, "consumerOffset.json").contains("\"t@g\""));
}

#[test]
fn the_files_of_a_stock_broker_are_taken_over() {
    let mut cluster = Cluster::prepare(&[]);
    cluster.on_disk(|| {
        let config = Path::new(STORE).join("config");
        fs::create_dir_all(&config).expect("made");
        let write = |name: &str, text: &str| {
            fs::replace(&config.join(name), text.as_bytes()).expect("written");
        };
        write(
            "topics.json",
            r#"{"dataVersion":{"counter":2,"timestamp":1650000000000},"topicConfigTable":{
                "old":{"order":false,"perm":6,"readQueueNums":5,"topicFilterType":"SINGLE_TAG",
                       "topicName":"old","topicSysFlag":0,"writeQueueNums":5}}}"#,
        );
        write(
            "subscriptionGroup.json",
            r#"{"dataVersion":{"counter":1,"timestamp":1650000000000},"subscriptionGroupTable":{
                "g":{"brokerId":0,"consumeBroadcastEnable":true,"consumeEnable":true,"consumeFromMinEnable":true,
                     "groupName":"g","notifyConsumerIdsChangedEnable":true,"retryMaxTimes":7,"retryQueueNums":1,
                     "whichBrokerWhenConsumeSlowly":1}}}"#,
        );
        // Keys that are numbers, as fastjson writes them.
        write(
            "consumerOffset.json",
            r#"{"offsetTable":{"old@g":{0:41,1:7}}}"#,
        );
        write("delayOffset.json", r#"{"offsetTable":{3:12}}"#);
    });
    cluster.start_broker();
    cluster.clients(|| async {
        let mut peer = Peer::connect().await;
        assert!(has_topic(&mut peer, "old").await);
        assert_eq!(peer.committed("g", "old").await.field("offset"), "41");
        let fields = [("group", Value::Str("g"))];
        let group = peer
            .ask(request::GET_SUBSCRIPTIONGROUP_CONFIG, &fields, &[])
            .await;
        assert!(String::from_utf8_lossy(&group.body).contains("\"retryMaxTimes\":7"));
        peer.commit("g", "old", 42).await;
    });
    cluster.stop_broker();
    assert!(file(&mut cluster, "consumerOffset.json").contains("42"));
    assert!(file(&mut cluster, "consumerOffset.json.bak").contains("{0:41"));
    assert!(file(&mut cluster, "topics.json").contains("\"old\""));
}

#[test]
fn a_file_that_cannot_be_read_is_replaced_by_its_backup() {
    let mut cluster = Cluster::start(&[]);
    cluster.clients(|| async {
        let mut peer = Peer::connect().await;
        peer.make_topic("first", 1).await;
        reactor::sleep(Duration::from_secs(3)).await;
        peer.make_topic("second", 1).await;
    });
    cluster.stop_broker();
    cluster.on_disk(|| {
        let path = Path::new(STORE).join("config").join("topics.json");
        let whole = fs::read(&path).expect("there");
        let backup = path.with_extension("json.bak");
        let older = fs::read(&backup).expect("there");
        fs::replace(&path, &whole[..whole.len() / 2]).expect("written");
        fs::replace(&backup, &older).expect("written");
    });
    cluster.start_broker();
    cluster.clients(|| async {
        let mut peer = Peer::connect().await;
        assert!(has_topic(&mut peer, "first").await);
        assert!(!has_topic(&mut peer, "second").await);
    });
}
