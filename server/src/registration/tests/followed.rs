//! Name servers that an address server names. It is a real one, on a thread of its own: what is asked of it is real HTTP.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::Mutex;
use std::thread;

use super::address_server::{Failure, ask};
use super::*;
use crate::config;

/// Answers every request with what it was last given; ends with the test process.
struct AddressServer {
    domain: String,
    answer: Arc<Mutex<(u16, String)>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl AddressServer {
    fn start(body: &str) -> AddressServer {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("some port is free");
        let domain = listener.local_addr().expect("it listens").to_string();
        let answer = Arc::new(Mutex::new((200, body.to_owned())));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (read, log) = (answer.clone(), asked.clone());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.expect("a connection");
                let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
                log.lock()
                    .expect("nobody panics in here")
                    .extend(lines.next());
                // The request ends with an empty line.
                lines.find(String::is_empty);
                let (status, body) = read.lock().expect("nobody panics in here").clone();
                let length = body.len();
                let head = format!("HTTP/1.1 {status} -\r\nContent-Length: {length}\r\n\r\n");
                let sent = (&stream).write_all((head + &body).as_bytes());
                sent.expect("the asker reads");
            }
        });
        AddressServer {
            domain,
            answer,
            asked,
        }
    }

    fn url(&self) -> String {
        format!("http://{}/rocketmq/nsaddr", self.domain)
    }

    fn answers(&self, status: u16, body: &str) {
        *self.answer.lock().expect("nobody panics in here") = (status, body.to_owned());
    }
}

#[test]
fn the_first_line_of_the_answer_names_the_name_servers() {
    let server = AddressServer::start("10.0.0.1:9876;ns-2:9877 \r\nnot this\n");
    let named = ask(&server.url()).expect("a list");
    assert_eq!(named, ["10.0.0.1:9876", "ns-2:9877"]);
    assert_eq!(
        *server.asked.lock().expect("nobody panics in here"),
        ["GET /rocketmq/nsaddr HTTP/1.1"]
    );
}

#[test]
fn an_answer_that_names_none_is_no_answer() {
    let server = AddressServer::start("");
    assert!(matches!(ask(&server.url()), Err(Failure::NoList(_))));
    server.answers(200, "<html>welcome</html>");
    assert!(matches!(ask(&server.url()), Err(Failure::NoList(_))));
    server.answers(404, "10.0.0.1:9876");
    assert!(matches!(ask(&server.url()), Err(Failure::Status(404))));
}

#[test]
fn the_brokers_keys_say_where_it_is_asked() {
    let of = |pairs: &[(&str, &str)]| config::tests::settings(pairs).address_server;
    let wanted = ("fetchNamesrvAddrByAddressServer", "true");
    let url = |pairs: &[(&str, &str)]| of(pairs).map(|server| server.url);
    assert_eq!(of(&[]), None);
    assert_eq!(
        url(&[wanted]).as_deref(),
        Some("http://jmenv.tbsite.net:8080/rocketmq/nsaddr")
    );
    let other = [
        wanted,
        ("rmqAddressServerDomain", "names.example:80"),
        ("rmqAddressServerSubGroup", "blue"),
    ];
    assert_eq!(
        url(&other).as_deref(),
        Some("http://names.example:80/rocketmq/blue")
    );
    assert_eq!(
        of(&[wanted, ("namesrvAddr", "10.0.0.1:9876")]),
        None,
        "a list in broker.conf beats it"
    );
}

#[test]
fn a_broker_follows_the_address_server_without_a_restart() {
    let mut scene = Scene::new(31);
    scene.name_server(1);
    scene.name_server(2);
    let server = AddressServer::start("10.0.0.1:9876");
    let settings = config::tests::settings(&[
        ("brokerName", "a"),
        ("brokerIP1", "10.0.0.10"),
        ("fetchNamesrvAddrByAddressServer", "true"),
        ("rmqAddressServerDomain", &server.domain),
    ]);
    let settings = Published::new(Arc::new(settings));
    let table = Table::of(10);
    let followed = settings.clone();
    scene
        .world
        .start(scene.broker, "broker", move || async move {
            let read = move || {
                let snapshot = table.0.borrow();
                (snapshot.topics.clone(), snapshot.version)
            };
            let registration = Registration::start(followed, Rc::new(read), not_told()).await;
            registration.first_round().await;
            std::future::pending::<()>().await;
        });
    let topic = "topic-000003";
    scene.world.run_for(Duration::from_secs(1));
    assert!(scene.route(1, topic).is_some(), "asked at the start");
    assert!(scene.route(2, topic).is_none());

    server.answers(200, "10.0.0.2:9876\n");
    scene.world.run_for(Duration::from_secs(11));
    assert!(scene.route(2, topic).is_some(), "a new one");
    assert!(scene.route(1, topic).is_some(), "clients may not know yet");
    assert_eq!(settings.load().namesrv_list(), ["10.0.0.2:9876"]);

    server.answers(500, "");
    scene.world.run_for(Duration::from_secs(60));
    assert!(scene.route(2, topic).is_some(), "no answer, no change");
    server.answers(200, "10.0.0.2:9876");
    scene.world.run_for(LEAVING);
    assert!(scene.route(1, topic).is_none(), "unregistered in the end");
    assert!(scene.route(2, topic).is_some());
}
