//! Ports, the address clients are told, and the name servers: what lies behind most "No route info of this topic".

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

use protocol::body::cluster::ClusterInfo;

use super::{Finding, ask};
use crate::config::Settings;
use crate::registration::address_server;

pub fn examine(settings: &Settings) -> Vec<Finding> {
    let ports = [Some(settings.listen_port), settings.fast_listen_port];
    let ports: Vec<_> = ports
        .into_iter()
        .flatten()
        .map(|port| look(settings, port))
        .collect();
    let running = ports.contains(&Port::Ours);
    let mut findings = Vec::new();
    for (port, seen) in [Some(settings.listen_port), settings.fast_listen_port]
        .into_iter()
        .flatten()
        .zip(&ports)
    {
        findings.push(judge_port(port, seen));
    }
    findings.push(judge_advertised(&advertised(settings, running)));
    let named = match &settings.address_server {
        Some(server) => address_server::ask(&server.url).unwrap_or_else(|failure| {
            findings.push(unnamed(&server.url, &failure));
            Vec::new()
        }),
        None => settings.namesrv_list(),
    };
    let name_servers: Vec<_> = named
        .into_iter()
        .map(|address| {
            (
                ask::cluster(&address).map_err(|error| error.to_string()),
                address,
            )
        })
        .collect();
    let me = Me {
        name: &settings.broker_name,
        id: settings.broker_id,
        address: settings.registered(),
        running,
        embedded: settings.embeds_name_server(),
    };
    findings.extend(judge_name_servers(&me, &name_servers));
    findings
}

fn unnamed(url: &str, failure: &address_server::Failure) -> Finding {
    Finding::fail(
        format!("address server {url}"),
        failure.to_string(),
        "correct rmqAddressServerDomain and rmqAddressServerSubGroup, or name the name servers in namesrvAddr",
    )
}

/// Who has a port.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Port {
    Free,
    /// A broker of our name: the one these settings are of.
    Ours,
    /// Somebody else; a broker's name if it is one.
    Taken(Option<String>),
    Refused(String),
}

fn look(settings: &Settings, port: u16) -> Port {
    match TcpListener::bind((settings.bind_address, port)) {
        Ok(_) => Port::Free,
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            match ask::broker_name(SocketAddr::new(from_here(settings.bind_address), port)) {
                Ok(name) if name == settings.broker_name => Port::Ours,
                Ok(name) => Port::Taken(Some(name)),
                Err(_) => Port::Taken(None),
            }
        }
        Err(error) => Port::Refused(error.to_string()),
    }
}

/// Where this machine reaches what is bound to `address`.
fn from_here(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        specific => specific,
    }
}

fn judge_port(port: u16, seen: &Port) -> Finding {
    let thing = format!("port {port}");
    match seen {
        Port::Free => Finding::ok(thing, "is free"),
        Port::Ours => Finding::ok(thing, "held by this broker, which runs"),
        Port::Taken(Some(name)) => Finding::fail(
            thing,
            format!("held by another broker, {name}"),
            "give one of them another listenPort (its neighbours two below and one above are used too)",
        ),
        Port::Taken(None) => Finding::fail(
            thing,
            "held by another program",
            format!("see who with `ss -ltnp sport = :{port}`, or set another listenPort"),
        ),
        Port::Refused(error) => Finding::fail(
            thing,
            format!("cannot be listened on: {error}"),
            "check bindAddress; ports below 1024 need a right of their own",
        ),
    }
}

/// What is to be known about the address that clients are told.
#[derive(Clone, Debug)]
struct Advertised {
    address: SocketAddr,
    bind: IpAddr,
    /// One of this machine's own addresses.
    own: bool,
    /// Everything is on this machine: no name server elsewhere.
    alone: bool,
    /// What answers there, tried only while the broker runs.
    answer: Option<Result<String, String>>,
    our_name: String,
}

fn advertised(settings: &Settings, running: bool) -> Advertised {
    let address = settings.advertised();
    Advertised {
        address,
        bind: settings.bind_address,
        own: UdpSocket::bind((address.ip(), 0)).is_ok(),
        alone: settings.embeds_name_server(),
        answer: running.then(|| ask::broker_name(address).map_err(|error| error.to_string())),
        our_name: settings.broker_name.clone(),
    }
}

fn judge_advertised(seen: &Advertised) -> Finding {
    let thing = format!("advertised address {}", seen.address);
    let ip = seen.address.ip();
    if ip.is_unspecified() {
        return Finding::fail(
            thing,
            "is no address",
            "set brokerIP1 to what clients can reach",
        );
    }
    match &seen.answer {
        Some(Err(error)) => {
            return Finding::fail(
                thing,
                format!("the broker runs, but not even this machine reaches it there: {error}"),
                "set brokerIP1 to what clients can reach, or mend the port mapping",
            );
        }
        Some(Ok(name)) if *name != seen.our_name => {
            return Finding::fail(
                thing,
                format!("another broker, {name}, answers there"),
                "set brokerIP1 to this one's address",
            );
        }
        _ => {}
    }
    if ip.is_loopback() {
        if seen.alone {
            return Finding::ok(thing, "this machine only");
        }
        return Finding::warn(
            thing,
            "is this machine to every client, wherever it runs",
            "set brokerIP1 to what clients on other machines can reach",
        );
    }
    if seen.own && !seen.bind.is_unspecified() && seen.bind != ip {
        return Finding::fail(
            thing,
            format!("the broker listens on {} only", seen.bind),
            "make bindAddress and brokerIP1 the same, or bindAddress 0.0.0.0",
        );
    }
    match (&seen.answer, seen.own) {
        (Some(_), _) => Finding::ok(thing, "reached from here"),
        (None, true) => Finding::ok(thing, "is this machine's"),
        (None, false) => Finding::warn(
            thing,
            "is not one of this machine's",
            "right behind a port mapping (containers, NAT), where it can be tried once the broker runs; wrong otherwise",
        ),
    }
}

/// This broker, as name servers should know it.
#[derive(Clone, Debug)]
struct Me<'a> {
    name: &'a str,
    id: i64,
    address: String,
    running: bool,
    /// The name server is part of this broker.
    embedded: bool,
}

type Answer = (Result<ClusterInfo, String>, String);

fn judge_name_servers(me: &Me<'_>, answers: &[Answer]) -> Vec<Finding> {
    let none_answers = answers.iter().all(|(answer, _)| answer.is_err());
    let judged = answers.iter().map(|(answer, address)| {
        let thing = format!("name server {address}");
        match answer {
            Ok(cluster) => judge_registration(me, thing, cluster),
            Err(_) if me.embedded && !me.running => {
                Finding::ok(thing, "starts and ends with this broker")
            }
            Err(error) if none_answers => Finding::fail(
                thing,
                format!("does not answer: {error}"),
                "start it, or correct namesrvAddr: clients find no broker without one",
            ),
            Err(error) => Finding::warn(
                thing,
                format!("does not answer: {error}"),
                "start it, or take it out of namesrvAddr",
            ),
        }
    });
    judged.collect()
}

fn judge_registration(me: &Me<'_>, thing: String, cluster: &ClusterInfo) -> Finding {
    let brokers = cluster.broker_addr_table.get(me.name);
    let known = brokers.and_then(|brokers| brokers.broker_addrs.get(&me.id));
    match known {
        Some(address) if *address == me.address && me.running => {
            Finding::ok(thing, "answers and knows this broker")
        }
        Some(address) if *address != me.address => Finding::warn(
            thing,
            format!("has {} with id {} at {address}", me.name, me.id),
            "two brokers must not share brokerName and brokerId; after a change of address this passes within two minutes",
        ),
        None if me.running => Finding::warn(
            thing,
            format!("answers, and does not know {}", me.name),
            "clients get `No route info of this topic`: the broker registers within 30 s of its start; if it stays so, its log \
             says why",
        ),
        _ => Finding::ok(thing, "answers"),
    }
}

#[cfg(test)]
mod tests;
