//! The few requests around a run: find the broker, create topics, wait for routes, ask for offsets. One blocking
//! connection, one request at a time; never used while something is measured, except by `topics`, which measures it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use rustix::net::{self, AddressFamily, SocketFlags, SocketType};
use serde::Deserialize;

use crate::error::{Error, Result};
use crate::wire::{self, Encoding, FRAME_BYTES_MAX, OPAQUE_FIRST, Reply, request, response};

const ANSWER_LIMIT: Duration = Duration::from_secs(10);
const ROUTE_LIMIT: Duration = Duration::from_secs(60);
const ROUTE_POLL: Duration = Duration::from_millis(50);
/// Readable and writable.
const PERMISSION: &str = "6";

pub struct Control {
    stream: TcpStream,
    address: SocketAddr,
    opaque: i32,
}

pub struct Answer {
    frame: Vec<u8>,
}

impl Answer {
    pub fn reply(&self) -> Reply<'_> {
        Reply::parse(&self.frame).expect("checked when it was read")
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BrokerData {
    broker_name: String,
    broker_addrs: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct QueueData {
    write_queue_nums: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Route {
    broker_datas: Vec<BrokerData>,
    queue_datas: Vec<QueueData>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClusterInfo {
    broker_addr_table: BTreeMap<String, BrokerData>,
}

impl Control {
    pub fn connect(address: SocketAddr) -> Result<Control> {
        let what = format!("connecting to {address}");
        let stream = TcpStream::connect_timeout(&address, ANSWER_LIMIT).map_err(Error::io(what))?;
        Control::over(stream, address)
    }

    fn over(stream: TcpStream, address: SocketAddr) -> Result<Control> {
        stream
            .set_nodelay(true)
            .and_then(|()| stream.set_read_timeout(Some(ANSWER_LIMIT)))
            .map_err(Error::io("setting up a socket"))?;
        Ok(Control {
            stream,
            address,
            opaque: OPAQUE_FIRST,
        })
    }

    /// The same from an address of this machine.
    pub fn connect_from(source: IpAddr, address: SocketAddr) -> Result<Control> {
        let opened = || {
            let family = match address {
                SocketAddr::V4(_) => AddressFamily::INET,
                SocketAddr::V6(_) => AddressFamily::INET6,
            };
            let socket = net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
            net::bind(&socket, &SocketAddr::new(source, 0))?;
            net::connect(&socket, &address)?;
            Ok::<_, std::io::Error>(TcpStream::from(socket))
        };
        let what = format!("connecting to {address} from {source}");
        Control::over(opened().map_err(Error::io(what))?, address)
    }

    /// One request and its answer, whatever its code.
    pub fn ask(&mut self, code: i32, fields: &[(&str, &str)], body: &[u8]) -> Result<Answer> {
        self.opaque += 1;
        let mut frame = Vec::new();
        wire::write_request(&mut frame, Encoding::Json, code, self.opaque, fields, body);
        self.ask_frame(&frame, self.opaque)
    }

    /// The same for a frame that is laid out already.
    pub fn ask_frame(&mut self, frame: &[u8], opaque: i32) -> Result<Answer> {
        let what = format!("asking {}", self.address);
        self.stream.write_all(frame).map_err(Error::io(&what))?;
        loop {
            let frame = self.next_frame(&what)?;
            // Anything else is not ours, such as a notice to all clients.
            if parse(&frame, &what)?.opaque == opaque {
                return Ok(Answer { frame });
            }
        }
    }

    /// `count` requests, `depth` of them in flight; `write` lays one into the buffer under its opaque, `each` gets
    /// the number of the request and its answer, in whatever order answers come.
    pub fn pipeline(
        &mut self,
        count: usize,
        depth: usize,
        mut write: impl FnMut(usize, i32, &mut Vec<u8>),
        mut each: impl FnMut(usize, &Reply) -> Result<()>,
    ) -> Result<()> {
        let what = format!("asking {}", self.address);
        let first = self.opaque + 1;
        self.opaque += count as i32;
        let mut output = Vec::new();
        let (mut asked, mut answered) = (0, 0);
        while answered < count {
            output.clear();
            while asked < count && asked - answered < depth {
                write(asked, first + asked as i32, &mut output);
                asked += 1;
            }
            self.stream.write_all(&output).map_err(Error::io(&what))?;
            let frame = self.next_frame(&what)?;
            let reply = parse(&frame, &what)?;
            if let Some(number) = reply.opaque.checked_sub(first)
                && (0..count as i32).contains(&number)
            {
                answered += 1;
                each(number as usize, &reply)?;
            }
        }
        Ok(())
    }

    fn next_frame(&mut self, what: &str) -> Result<Vec<u8>> {
        let mut word = [0; 4];
        self.stream.read_exact(&mut word).map_err(Error::io(what))?;
        let len = u32::from_be_bytes(word) as usize;
        if len > FRAME_BYTES_MAX {
            return Err(Error::Protocol(format!("{what}: a frame of {len} bytes")));
        }
        let mut frame = vec![0; len];
        self.stream
            .read_exact(&mut frame)
            .map_err(Error::io(what))?;
        Ok(frame)
    }

    fn demand(&mut self, code: i32, fields: &[(&str, &str)]) -> Result<Answer> {
        let answer = self.ask(code, fields, b"")?;
        match answer.reply().code {
            response::SUCCESS => Ok(answer),
            refused => Err(Error::Refused {
                what: format!("request {code}"),
                code: refused,
                remark: answer.reply().remark(),
            }),
        }
    }

    pub fn create_topic(&mut self, topic: &str, queues: u32) -> Result<()> {
        let queues = queues.to_string();
        self.demand(
            request::UPDATE_AND_CREATE_TOPIC,
            &topic_fields(topic, &queues),
        )?;
        Ok(())
    }

    /// What the broker tells of itself, as JSON.
    pub fn runtime_info(&mut self) -> Result<Vec<u8>> {
        let answer = self.demand(request::GET_BROKER_RUNTIME_INFO, &[])?;
        Ok(answer.reply().body.to_vec())
    }

    pub fn max_offset(&mut self, topic: &str, queue: u32) -> Result<u64> {
        self.offset(request::GET_MAX_OFFSET, topic, queue)
    }

    pub fn min_offset(&mut self, topic: &str, queue: u32) -> Result<u64> {
        self.offset(request::GET_MIN_OFFSET, topic, queue)
    }

    fn offset(&mut self, code: i32, topic: &str, queue: u32) -> Result<u64> {
        let queue = queue.to_string();
        let answer = self.demand(
            code,
            &[("topic", topic), ("queueId", &queue), ("committed", "true")],
        )?;
        answer
            .reply()
            .number("offset")
            .ok_or_else(|| Error::Protocol(format!("no offset in the answer to {code}")))
    }

    /// Number of write queues as the name server knows them; `None` while it does not.
    pub fn route(&mut self, topic: &str) -> Result<Option<u32>> {
        let fields = [("topic", topic), ("acceptStandardJsonOnly", "true")];
        let answer = self.ask(request::GET_ROUTEINFO_BY_TOPIC, &fields, b"")?;
        if answer.reply().code != response::SUCCESS {
            return Ok(None);
        }
        let route: Route = serde_json::from_slice(answer.reply().body)
            .map_err(|error| Error::Protocol(format!("route of {topic}: {error}")))?;
        Ok(match route.broker_datas.is_empty() {
            true => None,
            false => Some(
                route
                    .queue_datas
                    .iter()
                    .map(|queue| queue.write_queue_nums)
                    .sum(),
            ),
        })
    }

    pub fn wait_for_route(&mut self, topic: &str) -> Result<()> {
        let deadline = Instant::now() + ROUTE_LIMIT;
        while self.route(topic)?.is_none() {
            if Instant::now() > deadline {
                return Err(Error::Failed(format!(
                    "{topic} has no route after {ROUTE_LIMIT:?}"
                )));
            }
            std::thread::sleep(ROUTE_POLL);
        }
        Ok(())
    }

    /// The first master that the name server knows, by broker name.
    pub fn first_master(&mut self) -> Result<SocketAddr> {
        let answer = self.demand(
            request::GET_BROKER_CLUSTER_INFO,
            &[("acceptStandardJsonOnly", "true")],
        )?;
        let body = String::from_utf8_lossy(answer.reply().body);
        let cluster: ClusterInfo = serde_json::from_str(&quote_numeric_keys(&body))
            .map_err(|error| Error::Protocol(format!("cluster info: {error}")))?;
        cluster
            .broker_addr_table
            .values()
            .find_map(|broker| Some((&broker.broker_name, broker.broker_addrs.get("0")?)))
            .ok_or_else(|| Error::Failed("the name server knows no master".into()))
            .and_then(|(_, address)| resolve(address))
    }
}

fn parse<'a>(frame: &'a [u8], what: &str) -> Result<Reply<'a>> {
    Reply::parse(frame).ok_or_else(|| Error::Protocol(format!("{what}: not a frame")))
}

pub fn topic_fields<'a>(topic: &'a str, queues: &'a str) -> [(&'a str, &'a str); 8] {
    [
        ("topic", topic),
        ("defaultTopic", "TBW102"),
        ("readQueueNums", queues),
        ("writeQueueNums", queues),
        ("perm", PERMISSION),
        ("topicFilterType", "SINGLE_TAG"),
        ("topicSysFlag", "0"),
        ("order", "false"),
    ]
}

pub fn resolve(address: &str) -> Result<SocketAddr> {
    address
        .to_socket_addrs()
        .map_err(Error::io(format!("resolving {address}")))?
        .next()
        .ok_or_else(|| Error::Failed(format!("{address} names no host")))
}

/// Old name servers write `{0:"address"}`; JSON wants `{"0":"address"}`.
fn quote_numeric_keys(body: &str) -> String {
    let mut quoted = String::with_capacity(body.len());
    let mut rest = body;
    while let Some(at) = rest.find(['{', ',']) {
        let (before, after) = rest.split_at(at + 1);
        quoted.push_str(before);
        let digits = after.len() - after.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        rest = after;
        if digits > 0 && after[digits..].starts_with(':') {
            quoted.push('"');
            quoted.push_str(&after[..digits]);
            quoted.push('"');
            rest = &after[digits..];
        }
    }
    quoted.push_str(rest);
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numeric_keys_of_an_old_name_server_become_json() {
        let old = r#"{"brokerAddrTable":{"b":{"brokerAddrs":{0:"10.0.0.1:10911",1:"h:2"},"brokerName":"b"}}}"#;
        let cluster: ClusterInfo =
            serde_json::from_str(&quote_numeric_keys(old)).expect("now JSON");
        assert_eq!(
            cluster.broker_addr_table["b"].broker_addrs["0"],
            "10.0.0.1:10911"
        );
    }

    #[test]
    fn strict_json_is_left_as_it_is() {
        let strict = r#"{"brokerAddrTable":{"b":{"brokerAddrs":{"0":"h:1"},"n":[1,2]}}}"#;
        assert_eq!(quote_numeric_keys(strict), strict);
    }
}
