//! `orbit-admin` as a process, against a broker of ours: every command, and what it writes.

#[path = "process/orbit.rs"]
mod process;

use std::process::{Command, Output};
use std::time::Duration;

use orbitmq_client::admin::Admin;
use orbitmq_client::{Consumed, Message, Producer, PushConsumer};
use process::Orbit;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(30);

/// A cluster with a topic, messages in it, and a group that reads it.
struct Scene {
    orbit: Orbit,
    consumer: PushConsumer,
    /// The id and the place of the message "42 apples".
    id: String,
    offset_id: String,
    queue: i32,
}

async fn scene() -> Option<Scene> {
    let orbit = Orbit::start(&["traceTopicEnable=true"]).await?;
    good(&orbit, "topic create Orders --queues 2");
    let builder = Producer::builder("shop").name_server(&orbit.name_server);
    let producer = builder.enable_trace(true).start().await.expect("started");
    let apples = Message::new("Orders", "42 apples")
        .tag("paid")
        .key("order-4711");
    let receipt = producer.send(apples).await.expect("stored");
    for number in 0..9 {
        let message = Message::new("Orders", format!("order {number}"));
        producer.send(message).await.expect("stored");
    }
    producer.shutdown().await;
    let (sender, mut arrived) = tokio::sync::mpsc::unbounded_channel();
    let listener = move |_| {
        let sender = sender.clone();
        async move {
            let _ = sender.send(());
            Consumed::Done
        }
    };
    let builder = PushConsumer::builder("warehouse").name_server(&orbit.name_server);
    let builder = builder.subscribe("Orders", "*").from_first();
    let consumer = builder.start(listener).await.expect("started");
    for _ in 0..10 {
        let one = tokio::time::timeout(LIMIT, arrived.recv()).await;
        one.expect("in time").expect("the consumer runs");
    }
    // The last call of the listener may not be over when its message has arrived.
    let admin = Admin::new(&orbit.name_server).expect("an address");
    let told = async {
        loop {
            consumer.commit().await;
            let progress = admin.progress("warehouse", Some("Orders")).await;
            if progress.is_ok_and(|progress| progress.lag == 0 && progress.queues.len() == 2) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LIMIT, told).await.expect("in time");
    Some(Scene {
        orbit,
        consumer,
        id: receipt.message_id,
        offset_id: receipt.offset_id,
        queue: receipt.queue_id,
    })
}

fn run(orbit: &Orbit, line: &str) -> Output {
    let words: Vec<String> = words(line);
    Command::new(env!("CARGO_BIN_EXE_orbit-admin"))
        .args(words)
        .env("NAMESRV_ADDR", &orbit.name_server)
        .output()
        .expect("it runs")
}

/// Words of a line; those between quotes belong together.
fn words(line: &str) -> Vec<String> {
    let parts = line.split('\'').enumerate();
    let each = parts.flat_map(|(number, part)| match number % 2 {
        0 => part.split_whitespace().map(str::to_owned).collect(),
        _ => vec![part.to_owned()],
    });
    each.collect()
}

/// What a command that succeeds writes.
fn good(orbit: &Orbit, line: &str) -> String {
    let output = run(orbit, line);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {text}{error}");
    assert!(!text.contains('\t'), "{line}: {text}");
    text
}

fn json(orbit: &Orbit, line: &str) -> Value {
    let text = good(orbit, &format!("{line} --json"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{line}: {error}: {text}"))
}

/// What a command that fails says of it.
fn bad(orbit: &Orbit, line: &str) -> String {
    let output = run(orbit, line);
    assert!(!output.status.success(), "{line} succeeded");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Every word is somewhere in one line of the text.
fn has_line(text: &str, words: &[&str]) {
    let found = text
        .lines()
        .any(|line| words.iter().all(|word| line.contains(word)));
    assert!(found, "no line with {words:?} in:\n{text}");
}

/// Runs what is to be seen of a scene, and ends it.
async fn with_scene(look: impl FnOnce(&Orbit, &Scene)) {
    if let Some(scene) = scene().await {
        look(&scene.orbit, &scene);
        scene.consumer.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clusters_and_brokers_are_shown_and_changed() {
    with_scene(|orbit, _| clusters_and_brokers(orbit)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_and_queues_are_shown_made_and_changed() {
    with_scene(|orbit, _| topics_and_queues(orbit)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_are_shown_and_made() {
    with_scene(groups).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_say_how_they_are() {
    with_scene(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_are_found_printed_and_sent() {
    with_scene(messages).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_consumes_what_it_is_told_to() {
    with_scene(consuming).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_are_moved() {
    with_scene(|orbit, _| offsets(orbit)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_gets_the_offsets_of_another() {
    with_scene(|orbit, _| cloning(orbit)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_watches_and_completes() {
    with_scene(|orbit, _| watching_and_the_rest(orbit)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_names_the_cause() {
    with_scene(|orbit, _| doctor(orbit)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mqadmins_words_are_understood() {
    with_scene(mqadmins_words).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_deleted_is_gone() {
    with_scene(|orbit, _| what_is_deleted_is_gone_for_good(orbit)).await;
}

fn clusters_and_brokers(orbit: &Orbit) {
    let list = good(orbit, "cluster list");
    has_line(&list, &["CLUSTER", "BROKER", "VERSION", "STATE"]);
    has_line(&list, &["DefaultCluster", "test", "127.0.0.1:"]);
    let brokers = json(orbit, "broker list");
    assert_eq!(
        (&brokers[0]["name"], &brokers[0]["reachable"]),
        (&"test".into(), &true.into())
    );
    has_line(&good(orbit, "broker status test"), &["test", "putTps"]);
    assert!(
        json(orbit, "broker status --filter bootTimestamp")["test"]["bootTimestamp"].is_string()
    );
    has_line(
        &good(orbit, "broker config get test autoCreateTopic"),
        &["autoCreateTopicEnable", "true"],
    );
    good(orbit, "broker config set autoCreateTopicEnable false");
    has_line(
        &good(orbit, "broker config get test autoCreateTopic"),
        &["autoCreateTopicEnable", "false"],
    );
    good(
        orbit,
        "broker config set autoCreateTopicEnable true --broker test",
    );
    assert!(bad(orbit, "broker config get test nothingLikeThis").contains("no setting"));
    assert!(bad(orbit, "broker config get nobody").contains("no broker nobody"));
    assert!(!bad(orbit, "broker config set noSuchKey 1").is_empty());
    has_line(
        &good(orbit, "broker writable test false"),
        &["does not take messages"],
    );
    has_line(
        &good(orbit, "broker writable test true"),
        &["takes messages"],
    );
    assert!(json(orbit, "namesrv config").is_array());
}

fn topics_and_queues(orbit: &Orbit) {
    let names = good(orbit, "topic list");
    assert!(
        names.contains("Orders") && !names.contains("TBW102"),
        "{names}"
    );
    assert!(good(orbit, "topic ls --all").contains("TBW102"));
    has_line(
        &good(orbit, "topic route Orders"),
        &["DefaultCluster", "test", "0=127.0.0.1:", "2", "RW-"],
    );
    assert_eq!(
        json(orbit, "topic route Orders")["queues"][0]["write_queues"],
        2
    );
    let status = json(orbit, "topic status Orders");
    let stored: i64 = status
        .as_array()
        .expect("queues")
        .iter()
        .map(|one| one["messages"].as_i64().expect("a number"))
        .sum();
    assert_eq!(stored, 10);
    has_line(
        &good(orbit, "queue list Orders"),
        &["test", "0", "UTC"].map(|word| if word == "UTC" { "20" } else { word }),
    );
    has_line(
        &good(orbit, "topic create Bills --read 4 --write 3 --order"),
        &["Bills has 3 queues on test"],
    );
    let bills = json(orbit, "topic show Bills");
    assert_eq!(
        (&bills[0]["read_queues"], &bills[0]["write_queues"]),
        (&4.into(), &3.into())
    );
    has_line(&good(orbit, "topic perm Bills 4"), &["Bills is R--"]);
    assert_eq!(json(orbit, "topic show Bills")[0]["perm"], "R--");
    assert!(bad(orbit, "topic perm Bills 9").contains("no permission"));
    assert!(bad(orbit, "topic route NoSuchTopic").contains("doctor"));
    assert!(bad(orbit, "topic create 'no spaces'").contains("illegal characters"));
    has_line(&good(orbit, "topic groups Orders"), &["warehouse"]);
}

fn groups(orbit: &Orbit, scene: &Scene) {
    has_line(
        &good(orbit, "group list"),
        &["warehouse", "1", "CLUSTERING", "CONSUME_PASSIVELY", "0"],
    );
    has_line(&good(orbit, "group progress warehouse"), &["lag 0"]);
    let progress = json(orbit, "group progress warehouse --topic Orders");
    assert_eq!(progress["queues"].as_array().expect("queues").len(), 2);
    let client = scene.consumer.client_id();
    has_line(
        &good(orbit, "group connections warehouse"),
        &[client, "RUST"],
    );
    assert_eq!(
        json(orbit, "group members warehouse")["subscriptions"]["Orders"],
        "TAG *"
    );
    good(orbit, "group create auditors --retries 3 --broadcast false");
    let auditors = json(orbit, "group show auditors");
    assert_eq!(
        (
            &auditors[0]["retryMaxTimes"],
            &auditors[0]["consumeBroadcastEnable"]
        ),
        (&3.into(), &false.into())
    );
    good(orbit, "group update auditors --consume false");
    let auditors = json(orbit, "group show auditors");
    assert_eq!(
        (&auditors[0]["retryMaxTimes"], &auditors[0]["consumeEnable"]),
        (&3.into(), &false.into())
    );
    has_line(&good(orbit, "group topics warehouse"), &["Orders"]);
}

fn running(orbit: &Orbit, scene: &Scene) {
    let client = scene.consumer.client_id();
    has_line(
        &good(orbit, "group running warehouse"),
        &[client, "Orders", "test"],
    );
    let running = json(
        orbit,
        &format!("group running warehouse --client {client} --stacks"),
    );
    assert_eq!(running[0]["settings"]["consumerGroup"], "warehouse");
    assert!(running[0]["stacks"].is_string());
    assert!(bad(orbit, "group running strangers").contains("no such member"));
}

fn messages(orbit: &Orbit, scene: &Scene) {
    let (id, offset_id) = (&scene.id, &scene.offset_id);
    let found = good(orbit, &format!("message get {offset_id}"));
    for words in [
        ["topic", "Orders"],
        ["id", id],
        ["keys", "order-4711"],
        ["42 apples", ""],
    ] {
        has_line(&found, &words);
    }
    assert_eq!(
        json(orbit, &format!("message get {id} --topic Orders"))[0]["body"],
        "42 apples"
    );
    assert!(bad(orbit, &format!("message get {id}")).contains("--topic"));
    has_line(
        &good(orbit, "message by-key Orders order-4711"),
        &[id, "paid", "42 apples"],
    );
    let none = json(orbit, "message by-key Orders order-4711 --until 2001-01-01");
    assert_eq!(none, Value::Array(Vec::new()));
    let queue = scene.queue;
    let first = json(
        orbit,
        &format!("message by-offset Orders --broker test --queue {queue} --offset 0"),
    );
    assert_eq!(first.as_array().expect("messages").len(), 1);
    assert_eq!(
        json(orbit, "message print Orders")
            .as_array()
            .expect("messages")
            .len(),
        10
    );
    assert_eq!(
        json(orbit, "message print Orders --tags paid")[0]["id"],
        id.as_str()
    );
    assert_eq!(
        json(orbit, "message print Orders --max 3")
            .as_array()
            .expect("messages")
            .len(),
        3
    );
    assert_eq!(
        json(orbit, "message print Orders --since now"),
        Value::Array(Vec::new())
    );
    let sent = json(
        orbit,
        "message send Orders 'by hand' --tag t --key k --property a=b --queue 1",
    );
    assert_eq!(sent["queue"], 1);
    let place = sent["offset_id"].as_str().expect("a place");
    let sent = json(orbit, &format!("message get {place}"));
    assert_eq!(
        (&sent[0]["body"], &sent[0]["properties"]["a"]),
        (&"by hand".into(), &"b".into())
    );
    has_line(
        &good(orbit, &format!("message trace {id}")),
        &["sent", "shop", "good", "Orders"],
    );
    let entries = json(
        orbit,
        &format!("queue show Orders --broker test --queue {queue} --max 2"),
    );
    assert_eq!(entries.as_array().expect("entries").len(), 2);
}

fn consuming(orbit: &Orbit, scene: &Scene) {
    let offset_id = &scene.offset_id;
    let client = scene.consumer.client_id();
    let consumed = json(
        orbit,
        &format!("message consume warehouse {client} {offset_id}"),
    );
    assert_eq!(consumed["consumeResult"], "CR_SUCCESS");
}

fn offsets(orbit: &Orbit) {
    let before = json(orbit, "offset show warehouse --topic Orders");
    let plan = json(
        orbit,
        "offset reset warehouse Orders --to earliest --dry-run",
    );
    assert!(
        plan.as_array()
            .expect("queues")
            .iter()
            .all(|queue| queue["to"] == 0)
    );
    assert_eq!(
        json(orbit, "offset show warehouse --topic Orders")["lag"],
        before["lag"]
    );
    assert!(bad(orbit, "offset reset warehouse Orders --to someday").contains("is no time"));
    assert!(bad(orbit, "offset reset warehouse Orders --to offset:1000").contains("not within"));
    // A group that nobody is in.
    good(orbit, "group create ledger");
    let moved = json(orbit, "offset reset ledger Orders --to offset:1 --queue 0");
    assert_eq!(
        (&moved[0]["queue"], &moved[0]["to"]),
        (&0.into(), &1.into())
    );
    let skipped = json(orbit, "offset skip ledger Orders");
    assert_eq!(skipped.as_array().expect("queues").len(), 2);
    assert_eq!(json(orbit, "offset show ledger --topic Orders")["lag"], 0);
    good(orbit, "offset reset ledger Orders --to 1h");
    let lag = json(orbit, "offset show ledger --topic Orders")["lag"].as_i64();
    assert!(lag.is_some_and(|lag| lag >= 10), "{lag:?}");
}

fn cloning(orbit: &Orbit) {
    good(orbit, "group create ledger");
    good(orbit, "group create copy");
    good(orbit, "offset skip ledger Orders");
    good(orbit, "offset clone ledger copy Orders");
    assert_eq!(json(orbit, "offset show copy --topic Orders")["lag"], 0);
}

fn watching_and_the_rest(orbit: &Orbit) {
    let looks = good(orbit, "watch topic Orders --times 2 --interval 20");
    assert_eq!(looks.lines().count(), 2, "{looks}");
    has_line(&looks, &["Orders:", "more a second"]);
    has_line(
        &good(orbit, "watch group warehouse --times 1"),
        &["warehouse: lag"],
    );
    has_line(&good(orbit, "watch brokers --times 1"), &["test put"]);
    let line: Value =
        serde_json::from_str(&good(orbit, "watch topic Orders --times 1 --json")).expect("JSON");
    assert_eq!(line["topic"], "Orders");
    has_line(&good(orbit, "transaction list"), &["test", "0"]);
    assert!(good(orbit, "completion bash").contains("orbit-admin"));
}

fn doctor(orbit: &Orbit) {
    // What it says of this machine's disk may be bad; nothing else is.
    let well = run(orbit, "doctor --topic Orders --group warehouse");
    let well = String::from_utf8_lossy(&well.stdout).into_owned();
    has_line(&well, &["ok", "name server", "knows 1 brokers"]);
    has_line(&well, &["ok", "topic Orders has 2 queues"]);
    has_line(
        &well,
        &["ok", "group warehouse has 1 members", "0 messages behind"],
    );
    let diagnosis = run(orbit, "doctor --topic Order");
    assert!(!diagnosis.status.success());
    let text = String::from_utf8_lossy(&diagnosis.stdout).into_owned();
    has_line(&text, &["BAD", "topic Order has no route"]);
    has_line(&text, &["there is Orders"]);
    assert!(bad(orbit, "-n 127.0.0.1:1 topic list").contains("Is it running there?"));
}

fn mqadmins_words(orbit: &Orbit, scene: &Scene) {
    let name_server = &orbit.name_server;
    good(
        orbit,
        &format!("updateTopic -n {name_server} -c DefaultCluster -t FromMqadmin -r 2 -w 2"),
    );
    has_line(
        &good(
            orbit,
            &format!("topicRoute -n {name_server} -t FromMqadmin"),
        ),
        &["test", "2"],
    );
    has_line(&good(orbit, "clusterList"), &["DefaultCluster"]);
    has_line(&good(orbit, "consumerProgress"), &["warehouse"]);
    has_line(
        &good(orbit, "queryMsgByKey -t Orders -k order-4711"),
        &["42 apples"],
    );
    let by_id = format!("queryMsgById -i {}", scene.offset_id);
    has_line(&good(orbit, &by_id), &["42 apples"]);
    good(orbit, "deleteTopic -c DefaultCluster -t FromMqadmin");
    assert!(!good(orbit, "topicList").contains("FromMqadmin"));
}

fn what_is_deleted_is_gone_for_good(orbit: &Orbit) {
    good(orbit, "topic create Bills");
    good(orbit, "group create auditors");
    assert!(bad(orbit, "topic delete Bills").contains("--yes"));
    has_line(
        &good(orbit, "topic delete Bills --yes"),
        &["Bills is deleted"],
    );
    assert!(!good(orbit, "topic list").contains("Bills"));
    good(orbit, "group delete auditors --yes");
    assert!(bad(orbit, "group show auditors").contains("no broker has a group"));
}
