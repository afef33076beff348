//! Name servers that an address server names: a list of `host:port` with `;` between, in the body of an HTTP answer.
//!
//! It is asked when a client starts that was given no name server, and again every two minutes. As long as no usable answer
//! comes, the client goes on with the list it has.

use std::io::Read;
use std::sync::Weak;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::session::Session;

const TIMEOUT: Duration = Duration::from_secs(3);
/// As RocketMQ's clients do.
pub(crate) const PERIOD: Duration = Duration::from_secs(120);
const PORT_DEFAULT: u16 = 8080;
/// Far more than any list of name servers.
const BODY_BYTES_MAX: u64 = 1 << 16;
const REDIRECTS_MAX: usize = 3;
const OK: u16 = 200;

/// Where it is, and what it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AddressServer {
    /// `host` or `host:port`; empty: there is none.
    pub domain: String,
    pub group: String,
}

impl Default for AddressServer {
    fn default() -> AddressServer {
        AddressServer {
            domain: String::new(),
            group: "nsaddr".to_owned(),
        }
    }
}

impl AddressServer {
    /// Clients of a unit may be given other name servers than the rest.
    pub fn url(&self, unit: &str) -> String {
        let AddressServer { domain, group } = self;
        let port = match domain.contains(':') {
            true => String::new(),
            false => format!(":{PORT_DEFAULT}"),
        };
        let unit = match unit {
            "" => String::new(),
            unit => format!("-{unit}?nofix=1"),
        };
        format!("http://{domain}{port}/rocketmq/{group}{unit}")
    }
}

/// The name servers it names now.
pub(crate) async fn ask(url: &str) -> Result<String> {
    let broken = |what: String| Error::Broken {
        address: url.to_owned(),
        what,
    };
    let asked = url.to_owned();
    let asking = tokio::task::spawn_blocking(move || fetch(&asked));
    // Looking up the host's name has no limit of its own.
    let answer = tokio::time::timeout(TIMEOUT * 2, asking).await;
    let answer = answer.map_err(|_| Error::Timeout {
        address: url.to_owned(),
        after: TIMEOUT * 2,
    })?;
    let answer = answer.map_err(|ended| broken(ended.to_string()))?;
    let text = answer.map_err(broken)?;
    // Only the first line counts, as in RocketMQ.
    let line = text.trim().lines().next().unwrap_or_default().trim();
    match is_list(line) {
        true => Ok(line.to_owned()),
        false => Err(broken(format!("{line:?} is no list of name servers"))),
    }
}

fn fetch(url: &str) -> std::result::Result<String, String> {
    let request = minreq::get(url)
        .with_timeout(TIMEOUT.as_secs())
        .with_max_redirects(REDIRECTS_MAX);
    let answer = request.send_lazy().map_err(|error| error.to_string())?;
    if answer.status_code != OK {
        return Err(format!("status {}", answer.status_code));
    }
    let mut text = String::new();
    let read = answer.take(BODY_BYTES_MAX).read_to_string(&mut text);
    read.map_err(|error| error.to_string())?;
    Ok(text)
}

fn is_list(line: &str) -> bool {
    let mut addresses = line
        .split(';')
        .map(str::trim)
        .filter(|address| !address.is_empty())
        .peekable();
    addresses.peek().is_some()
        && addresses.all(|address| {
            let port = address
                .rsplit_once(':')
                .map(|(_, port)| port.parse::<u16>());
            matches!(port, Some(Ok(port)) if port > 0)
        })
}

/// Keeps a client's list as the address server has it, until the client is gone.
pub(crate) async fn follow(session: Weak<Session>, url: String, period: Duration) {
    loop {
        tokio::time::sleep(period).await;
        let named = ask(&url).await;
        let Some(session) = session.upgrade() else {
            return;
        };
        match named {
            Ok(named) => session.routes.use_name_servers(&named),
            Err(error) => tracing::warn!(url, %error, "name servers stay as they are"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::thread;

    use super::*;
    use crate::settings::Settings;

    /// Gives one answer after the other, the last one again and again. Returns where.
    fn serve(answers: &'static [(u16, &str)]) -> AddressServer {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("some port is free");
        let domain = listener.local_addr().expect("it listens").to_string();
        thread::spawn(move || {
            let last = answers.last().expect("there is one");
            let mut answers = answers.iter().chain(std::iter::repeat(last));
            for stream in listener.incoming() {
                let stream = stream.expect("a connection");
                let mut lines = BufReader::new(&stream).lines().map_while(|line| line.ok());
                // The request ends with an empty line.
                lines.find(String::is_empty);
                let (status, body) = answers.next().expect("without end");
                let length = body.len();
                let head = format!("HTTP/1.1 {status} -\r\nContent-Length: {length}\r\n\r\n");
                // Who has asked may be gone.
                let _ = (&stream).write_all((head + body).as_bytes());
            }
        });
        AddressServer {
            domain,
            ..AddressServer::default()
        }
    }

    #[test]
    fn it_is_asked_where_rocketmqs_clients_ask() {
        let server = |domain: &str| AddressServer {
            domain: domain.to_owned(),
            ..AddressServer::default()
        };
        let url = server("names.example").url("");
        assert_eq!(url, "http://names.example:8080/rocketmq/nsaddr");
        let url = server("names.example:80").url("u");
        assert_eq!(url, "http://names.example:80/rocketmq/nsaddr-u?nofix=1");
    }

    #[tokio::test]
    async fn only_a_list_of_name_servers_is_an_answer() {
        let server = serve(&[
            (200, "a:1;b:2 \nnot this\n"),
            (200, "<html>"),
            (200, ""),
            (500, "a:1"),
        ]);
        let url = server.url("");
        assert_eq!(ask(&url).await.expect("a list"), "a:1;b:2");
        for _ in 0..3 {
            assert!(matches!(ask(&url).await, Err(Error::Broken { .. })));
        }
    }

    #[tokio::test]
    async fn a_client_without_name_servers_has_those_of_the_address_server_and_follows_them() {
        let address_server = serve(&[(200, "a:1"), (500, "no"), (200, "b:2;c:3")]);
        let url = address_server.url("");
        let settings = Settings {
            name_servers: String::new(),
            address_server,
            ..Settings::default()
        };
        let (session, _asked) = Session::start(settings).await.expect("it answers");
        assert_eq!(*session.routes.name_servers(), ["a:1"]);
        let following = follow(
            std::sync::Arc::downgrade(&session),
            url,
            Duration::from_millis(1),
        );
        let following = tokio::spawn(following);
        let other = async {
            while *session.routes.name_servers() != ["b:2", "c:3"] {
                tokio::task::yield_now().await;
            }
        };
        let patience = Duration::from_secs(20);
        tokio::time::timeout(patience, other)
            .await
            .expect("in time");
        drop(session);
        let ended = tokio::time::timeout(patience, following).await;
        ended.expect("it ends with its client").expect("well");
    }

    #[tokio::test]
    async fn a_client_that_is_told_of_neither_does_not_start() {
        let settings = Settings {
            name_servers: String::new(),
            ..Settings::default()
        };
        let started = Session::start(settings).await;
        assert!(matches!(started, Err(Error::NoNameServer)));
    }
}
