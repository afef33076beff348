//! One question to a broker or a name server, on a plain blocking socket with short deadlines.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use protocol::body::Body;
use protocol::body::cluster::ClusterInfo;
use protocol::body::kv_table::KvTable;
use protocol::code::{request, response};
use protocol::frame::FRAME_BYTES_MAX;
use protocol::{Command, Encoding, write_request};

const CONNECT_MAX: Duration = Duration::from_secs(1);
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// The name of the broker that listens there; fails if nobody does, or if it is no broker.
pub fn broker_name(address: SocketAddr) -> io::Result<String> {
    let body = ask(address, request::GET_BROKER_CONFIG)?;
    let text = String::from_utf8_lossy(&body);
    let name = text
        .lines()
        .find_map(|line| line.strip_prefix("brokerName="));
    name.map(|name| name.trim().to_owned())
        .ok_or_else(|| io::Error::other("it did not say its name"))
}

/// What a name server knows of the cluster; `address` is `host:port`.
pub fn cluster(address: &str) -> io::Result<ClusterInfo> {
    let address = address.to_socket_addrs()?.next();
    let address = address.ok_or_else(|| io::Error::other("the name has no address"))?;
    let body = ask(address, request::GET_BROKER_CLUSTER_INFO)?;
    ClusterInfo::from_json(&body).map_err(io::Error::other)
}

/// A broker's runtime information.
pub fn runtime(address: SocketAddr) -> io::Result<BTreeMap<String, String>> {
    let body = ask(address, request::GET_BROKER_RUNTIME_INFO)?;
    let table = KvTable::from_json(&body).map_err(io::Error::other)?;
    Ok(table.table)
}

/// The body of the answer to a request without fields.
fn ask(address: SocketAddr, code: i32) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&address, CONNECT_MAX)?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    stream.set_write_timeout(Some(ANSWER_MAX))?;
    let mut frame = Vec::new();
    write_request(&mut frame, Encoding::Json, code, 1, false, &[], &[]);
    stream.write_all(&frame)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(io::Error::other("it speaks another protocol"));
    }
    frame.resize(length, 0);
    stream.read_exact(&mut frame)?;
    let answer = Command::decode(&frame).map_err(io::Error::other)?;
    if answer.code != response::SUCCESS {
        let remark = answer.remark_str().unwrap_or_default();
        return Err(io::Error::other(format!("code {}: {remark}", answer.code)));
    }
    Ok(answer.body.to_vec())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;
    use protocol::write_response;

    /// Answers one request with `code` and `body`.
    fn answering(code: i32, body: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("somebody asks");
            let mut length = [0; 4];
            stream.read_exact(&mut length).expect("a frame");
            let mut frame = vec![0; u32::from_be_bytes(length) as usize];
            stream.read_exact(&mut frame).expect("a frame");
            let command = Command::decode(&frame).expect("a command");
            let mut out = Vec::new();
            write_response(&mut out, (&command).into(), code, None, &[], body);
            stream.write_all(&out).expect("the asker waits");
        });
        address
    }

    #[test]
    fn a_broker_says_its_name() {
        let address = answering(response::SUCCESS, b"brokerId=0\nbrokerName=broker-a\n");
        assert_eq!(broker_name(address).expect("an answer"), "broker-a");
    }

    #[test]
    fn a_refusal_and_a_stranger_are_errors() {
        assert!(broker_name(answering(1, b"")).is_err());
        assert!(broker_name(answering(response::SUCCESS, b"hello")).is_err());
    }

    #[test]
    fn a_name_server_lists_its_brokers() {
        let body = br#"{"brokerAddrTable":{"a":{"brokerAddrs":{0:"10.0.0.1:10911"},"brokerName":"a","cluster":"c"}},"clusterAddrTable":{"c":["a"]}}"#;
        let address = answering(response::SUCCESS, body);
        let info = cluster(&address.to_string()).expect("an answer");
        assert_eq!(
            info.broker_addr_table["a"].broker_addrs[&0],
            "10.0.0.1:10911"
        );
    }
}
