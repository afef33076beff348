// A name server and a broker in one, in memory, in this process: enough of them for the client's tests and its
// documentation's examples to run. Included as a module by both. It can be told to fail, and it remembers what it
// was asked.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use protocol::body::heartbeat::HeartbeatData;
use protocol::body::lists::ConsumerList;
use protocol::body::lock::{LockBatchAnswer, LockBatchRequest};
use protocol::body::queue::MessageQueue;
use protocol::body::route::{BrokerData, QueueData, TopicRouteData};
use protocol::code::{request, response};
use protocol::header::pull::PullHeader;
use protocol::header::send::SendHeader;
use protocol::record::{self, Draft};
use protocol::{
    Asked, Command, Text, Value, batch, properties, sysflag, write_request, write_response,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};

#[derive(Clone)]
pub struct Broker {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    arrived: Arc<Notify>,
}

#[derive(Default)]
pub struct State {
    topics: HashMap<String, Vec<Vec<Stored>>>,
    pub offsets: HashMap<(String, String, i32), i64>,
    members: HashMap<String, BTreeMap<String, Outbox>>,
    /// Who has locked which queue, by group and queue.
    pub locks: HashMap<(String, MessageQueue), String>,
    /// Requests for locks are refused.
    pub refuse_locks: bool,
    /// Codes with which the next sends are refused.
    pub refusals: VecDeque<i32>,
    /// Every request code that came, in order.
    pub asked: Vec<i32>,
    /// The next request that is a send breaks its connection.
    pub break_next_send: bool,
    log_offset: u64,
}

#[derive(Clone)]
struct Stored {
    record: Vec<u8>,
    tag_hash: i32,
}

type Outbox = mpsc::UnboundedSender<Vec<u8>>;

const NAME: &str = "fake";

impl Broker {
    pub async fn start() -> Broker {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let broker = Broker {
            address: listener.local_addr().expect("bound"),
            state: Arc::default(),
            arrived: Arc::default(),
        };
        broker.make_topic("TBW102", 8);
        let accepting = broker.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(accepting.clone().serve(stream));
            }
        });
        broker
    }

    pub fn address(&self) -> String {
        self.address.to_string()
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub fn make_topic(&self, topic: &str, queues: usize) {
        self.state()
            .topics
            .entry(topic.to_owned())
            .or_insert_with(|| vec![Vec::new(); queues]);
    }

    /// Bodies as they were sent, queue by queue.
    #[allow(dead_code)] // not every test looks
    pub fn bodies(&self, topic: &str) -> Vec<Vec<Vec<u8>>> {
        let body = |stored: &Stored| {
            record::View::parse(&stored.record)
                .expect("our own")
                .body
                .to_vec()
        };
        let state = self.state();
        let queues = state.topics.get(topic).map_or(&[][..], Vec::as_slice);
        queues
            .iter()
            .map(|queue| queue.iter().map(body).collect())
            .collect()
    }

    async fn serve(self, stream: TcpStream) {
        let (mut reader, mut writer) = stream.into_split();
        let (outbox, mut frames) = mpsc::unbounded_channel::<Vec<u8>>();
        tokio::spawn(async move {
            while let Some(frame) = frames.recv().await {
                if writer.write_all(&frame).await.is_err() {
                    return;
                }
            }
        });
        while let Ok(len) = reader.read_u32().await {
            let mut frame = vec![0; len as usize];
            if reader.read_exact(&mut frame).await.is_err() {
                return;
            }
            let code = Command::decode(&frame).expect("clients send commands").code;
            let is_send = matches!(code, request::SEND_MESSAGE_V2 | request::SEND_BATCH_MESSAGE);
            {
                let mut state = self.state();
                state.asked.push(code);
                if is_send && std::mem::take(&mut state.break_next_send) {
                    return;
                }
            }
            // Only a pull may wait; everything else is answered in order.
            if code == request::PULL_MESSAGE {
                let (broker, outbox) = (self.clone(), outbox.clone());
                tokio::spawn(async move { broker.pull(&frame, &outbox).await });
            } else {
                self.answer(&frame, &outbox);
            }
        }
    }

    fn answer(&self, frame: &[u8], outbox: &Outbox) {
        let command = Command::decode(frame).expect("decoded before");
        let mut out = Vec::new();
        let asked = Asked::from(&command);
        match command.code {
            request::GET_ROUTEINFO_BY_TOPIC => self.route(&command, &mut out),
            request::SEND_MESSAGE_V2 | request::SEND_BATCH_MESSAGE => self.send(&command, &mut out),
            request::HEART_BEAT => {
                self.heartbeat(&command, outbox);
                write_response(&mut out, asked, response::SUCCESS, None, &[], b"");
            }
            request::UNREGISTER_CLIENT => {
                self.unregister(&command);
                write_response(&mut out, asked, response::SUCCESS, None, &[], b"");
            }
            request::GET_CONSUMER_LIST_BY_GROUP => self.member_list(&command, &mut out),
            request::CONSUMER_SEND_MSG_BACK => self.take_back(&command, &mut out),
            request::LOCK_BATCH_MQ => self.lock(&command, &mut out),
            request::UNLOCK_BATCH_MQ => self.unlock(&command, &mut out),
            _ => self.offsets(&command, &mut out),
        }
        if !command.is_oneway() {
            let _ = outbox.send(out);
        }
    }

    fn route(&self, command: &Command, out: &mut Vec<u8>) {
        let topic = command.fields.string("topic").unwrap_or_default();
        let Some(queues) = self.state().topics.get(&*topic).map(Vec::len) else {
            return write_response(
                out,
                command.into(),
                response::TOPIC_NOT_EXIST,
                None,
                &[],
                b"",
            );
        };
        let data = TopicRouteData {
            broker_datas: vec![BrokerData {
                broker_name: NAME.into(),
                broker_addrs: [(0, self.address())].into(),
                ..BrokerData::default()
            }],
            queue_datas: vec![QueueData {
                broker_name: NAME.into(),
                perm: 6,
                read_queue_nums: queues as i32,
                write_queue_nums: queues as i32,
                topic_sys_flag: 0,
            }],
            ..TopicRouteData::default()
        };
        let body = serde_json::to_vec(&data).expect("string keys");
        write_response(out, command.into(), response::SUCCESS, None, &[], &body);
    }

    fn send(&self, command: &Command, out: &mut Vec<u8>) {
        let header = SendHeader::from(command).expect("a whole header");
        if let Some(code) = self.state().refusals.pop_front() {
            return write_response(out, command.into(), code, Some("told to refuse"), &[], b"");
        }
        let topic = header.topic.as_str();
        self.make_topic(&topic, header.default_topic_queues as usize);
        let whole = [(
            header.properties.as_bytes().into_owned(),
            command.body.to_vec(),
        )];
        let messages: Vec<(Vec<u8>, Vec<u8>)> = if header.batch {
            let inner = batch::iter(command.body).map(|message| message.expect("a whole batch"));
            inner
                .map(|message| (message.properties.to_vec(), message.body.to_vec()))
                .collect()
        } else {
            whole.to_vec()
        };
        let mut ids = Vec::new();
        let mut first = None;
        for (properties, body) in messages {
            let (offset, id) = self.store(&topic, &header, &properties, &body);
            first.get_or_insert(offset);
            ids.push(id);
        }
        self.arrived.notify_waiters();
        let fields = [
            ("msgId", Value::Str(&ids.join(","))),
            ("queueId", Value::I32(header.queue_id)),
            ("queueOffset", Value::I64(first.unwrap_or(0))),
        ];
        write_response(out, command.into(), response::SUCCESS, None, &fields, b"");
    }

    fn store(
        &self,
        topic: &str,
        header: &SendHeader,
        properties: &[u8],
        body: &[u8],
    ) -> (i64, String) {
        let mut state = self.state();
        let log_offset = state.log_offset;
        let queue =
            &mut state.topics.get_mut(topic).expect("made before")[header.queue_id as usize];
        let draft = Draft {
            topic,
            queue_id: header.queue_id,
            flag: header.flag,
            sys_flag: header.sys_flag,
            born_ms: header.born_ms,
            born_host: self.address,
            store_host: self.address,
            reconsume_times: header.reconsume_times,
            prepared_transaction_offset: 0,
            properties: Text::plain(properties),
            body,
        };
        let mut bytes = Vec::new();
        let placed = draft.append_to(&mut bytes);
        let offset = queue.len();
        record::patch(
            &mut bytes,
            offset as u64,
            log_offset,
            placed.store_time_at,
            header.born_ms,
        );
        let tag_hash =
            properties::get_str(properties, properties::TAGS).map_or(0, properties::tag_hash);
        queue.push(Stored {
            record: bytes,
            tag_hash,
        });
        state.log_offset += placed.len as u64;
        (offset as i64, record::message_id(self.address, log_offset))
    }

    async fn pull(&self, frame: &[u8], outbox: &Outbox) {
        let command = Command::decode(frame).expect("decoded before");
        let header = PullHeader::from(&command).expect("a whole header");
        let topic = header.topic.as_str();
        let tags = header
            .subscription
            .map(|text| text.as_str().into_owned())
            .unwrap_or_default();
        let wanted =
            protocol::body::heartbeat::SubscriptionData::by_tags(&topic, &tags, 0).code_set;
        if header.sys_flag & sysflag::pull::COMMIT_OFFSET != 0 {
            let group = header.consumer_group.as_str().into_owned();
            let key = (group, topic.clone().into_owned(), header.queue_id);
            self.state().offsets.insert(key, header.commit_offset);
        }
        let deadline =
            tokio::time::Instant::now() + Duration::from_millis(header.suspend_ms as u64);
        loop {
            let arrived = self.arrived.notified();
            if let Some(answer) = self.found(&command, &header, &topic, &wanted) {
                let _ = outbox.send(answer);
                return;
            }
            if tokio::time::timeout_at(deadline, arrived).await.is_err() {
                let mut out = Vec::new();
                let fields = pulled(header.queue_offset, header.queue_offset);
                write_response(
                    &mut out,
                    (&command).into(),
                    response::PULL_NOT_FOUND,
                    None,
                    &fields,
                    b"",
                );
                let _ = outbox.send(out);
                return;
            }
        }
    }

    fn found(
        &self,
        command: &Command,
        header: &PullHeader,
        topic: &str,
        wanted: &[i32],
    ) -> Option<Vec<u8>> {
        let state = self.state();
        let queue = state.topics.get(topic)?.get(header.queue_id as usize)?;
        let rest = queue
            .get(header.queue_offset as usize..)
            .filter(|rest| !rest.is_empty())?;
        let seen = &rest[..rest.len().min(header.messages_max as usize)];
        let chosen = seen
            .iter()
            .filter(|stored| wanted.is_empty() || wanted.contains(&stored.tag_hash));
        let body: Vec<u8> = chosen
            .flat_map(|stored| stored.record.iter().copied())
            .collect();
        let code = if body.is_empty() {
            response::PULL_RETRY_IMMEDIATELY
        } else {
            response::SUCCESS
        };
        let fields = pulled(header.queue_offset + seen.len() as i64, queue.len() as i64);
        let mut out = Vec::new();
        write_response(&mut out, command.into(), code, None, &fields, &body);
        Some(out)
    }

    fn heartbeat(&self, command: &Command, outbox: &Outbox) {
        let data: HeartbeatData = serde_json::from_slice(command.body).expect("a heartbeat");
        let mut state = self.state();
        for consumer in data.consumer_data_set {
            let group = consumer.group_name;
            let members = state.members.entry(group.clone()).or_default();
            if members
                .insert(data.client_id.clone(), outbox.clone())
                .is_none()
            {
                notify(&group, members);
            }
        }
    }

    fn unregister(&self, command: &Command) {
        let client = command.fields.string("clientID").unwrap_or_default();
        let Some(group) = command.fields.string("consumerGroup") else {
            return;
        };
        if let Some(members) = self.state().members.get_mut(&*group) {
            members.remove(&*client);
            notify(&group, members);
        }
    }

    fn member_list(&self, command: &Command, out: &mut Vec<u8>) {
        let group = command.fields.string("consumerGroup").unwrap_or_default();
        let state = self.state();
        let members = state.members.get(&*group);
        let list = ConsumerList {
            consumer_id_list: members
                .into_iter()
                .flat_map(BTreeMap::keys)
                .cloned()
                .collect(),
        };
        let body = serde_json::to_vec(&list).expect("string keys");
        write_response(out, command.into(), response::SUCCESS, None, &[], &body);
    }

    /// A lock is held until it is given back.
    fn lock(&self, command: &Command, out: &mut Vec<u8>) {
        let asked: LockBatchRequest = serde_json::from_slice(command.body).expect("a lock request");
        let mut state = self.state();
        if state.refuse_locks {
            let code = response::SYSTEM_ERROR;
            return write_response(out, command.into(), code, Some("told to refuse"), &[], b"");
        }
        let mut is_free = |queue: &MessageQueue| {
            let key = (asked.consumer_group.clone(), queue.clone());
            let holder = state.locks.entry(key);
            *holder.or_insert_with(|| asked.client_id.clone()) == asked.client_id
        };
        let locked = asked.mq_set.iter().filter(|queue| is_free(queue));
        let answer = LockBatchAnswer {
            lock_ok_mq_set: locked.cloned().collect(),
        };
        let body = serde_json::to_vec(&answer).expect("string keys");
        write_response(out, command.into(), response::SUCCESS, None, &[], &body);
    }

    fn unlock(&self, command: &Command, out: &mut Vec<u8>) {
        let asked: LockBatchRequest = serde_json::from_slice(command.body).expect("a lock request");
        self.state().locks.retain(|(group, queue), holder| {
            *group != asked.consumer_group
                || *holder != asked.client_id
                || !asked.mq_set.contains(queue)
        });
        write_response(out, command.into(), response::SUCCESS, None, &[], b"");
    }

    /// The message goes to the retry topic at once; real brokers let it wait.
    fn take_back(&self, command: &Command, out: &mut Vec<u8>) {
        let fields = &command.fields;
        let retry = protocol::names::retry_topic(&fields.string("group").unwrap_or_default());
        let origin = fields.string("originTopic").unwrap_or_default();
        let at = fields.required_i64("offset").expect("a whole header") as u64;
        self.make_topic(&retry, 1);
        let found = {
            let state = self.state();
            let stored = state.topics.values().flatten().flatten();
            let parsed = stored.map(|stored| record::View::parse(&stored.record).expect("our own"));
            parsed
                .filter(|view| view.log_offset == at)
                .map(|view| {
                    (
                        view.properties.to_vec(),
                        view.body.to_vec(),
                        view.reconsume_times,
                    )
                })
                .next()
        };
        let (kept, body, reconsumed) = found.expect("a message that was delivered");
        let kept = properties::set(&kept, properties::RETRY_TOPIC, origin.as_bytes());
        let header = SendHeader {
            producer_group: Text::default(),
            topic: Text::plain(retry.as_bytes()),
            default_topic: Text::default(),
            default_topic_queues: 1,
            queue_id: 0,
            sys_flag: 0,
            born_ms: 0,
            flag: 0,
            properties: Text::plain(&kept),
            reconsume_times: reconsumed + 1,
            unit_mode: false,
            max_reconsume_times: None,
            batch: false,
            broker_name: None,
        };
        self.store(&retry, &header, &kept, &body);
        self.arrived.notify_waiters();
        write_response(out, command.into(), response::SUCCESS, None, &[], b"");
    }

    fn offsets(&self, command: &Command, out: &mut Vec<u8>) {
        let fields = &command.fields;
        let topic = fields.string("topic").unwrap_or_default().into_owned();
        let queue = fields.i32("queueId").ok().flatten().unwrap_or(0);
        let group = fields
            .string("consumerGroup")
            .unwrap_or_default()
            .into_owned();
        let key = (group, topic.clone(), queue);
        let mut state = self.state();
        let found = match command.code {
            request::QUERY_CONSUMER_OFFSET => state.offsets.get(&key).copied(),
            request::UPDATE_CONSUMER_OFFSET => {
                let offset = fields.required_i64("commitOffset").expect("a whole header");
                state.offsets.insert(key, offset);
                Some(offset)
            }
            request::GET_MIN_OFFSET => Some(0),
            request::GET_MAX_OFFSET => {
                let queues = state.topics.get(&topic);
                queues
                    .and_then(|queues| queues.get(queue as usize))
                    .map(|queue| queue.len() as i64)
            }
            _ => {
                return write_response(
                    out,
                    command.into(),
                    response::REQUEST_CODE_NOT_SUPPORTED,
                    None,
                    &[],
                    b"",
                );
            }
        };
        match found {
            Some(offset) => {
                let fields = [("offset", Value::I64(offset))];
                write_response(out, command.into(), response::SUCCESS, None, &fields, b"");
            }
            None => write_response(
                out,
                command.into(),
                response::QUERY_NOT_FOUND,
                None,
                &[],
                b"",
            ),
        }
    }
}

fn pulled(next: i64, max: i64) -> [(&'static str, Value<'static>); 4] {
    [
        ("suggestWhichBrokerId", Value::I64(0)),
        ("nextBeginOffset", Value::I64(next)),
        ("minOffset", Value::I64(0)),
        ("maxOffset", Value::I64(max)),
    ]
}

fn notify(group: &str, members: &BTreeMap<String, Outbox>) {
    let mut out = Vec::new();
    let fields = [("consumerGroup", Value::Str(group))];
    let code = request::NOTIFY_CONSUMER_IDS_CHANGED;
    write_request(
        &mut out,
        protocol::Encoding::Json,
        code,
        0,
        true,
        &fields,
        b"",
    );
    for outbox in members.values() {
        let _ = outbox.send(out.clone());
    }
}
