use super::*;
use crate::doctor::Verdict;
use protocol::body::route::BrokerData;

fn seen(address: &str) -> Advertised {
    Advertised {
        address: address.parse().expect("an address"),
        bind: Ipv4Addr::UNSPECIFIED.into(),
        own: true,
        alone: false,
        answer: None,
        our_name: "broker-a".to_owned(),
    }
}

#[test]
fn a_port_is_free_ours_or_in_the_way() {
    assert_eq!(judge_port(10911, &Port::Free).verdict, Verdict::Ok);
    assert_eq!(judge_port(10911, &Port::Ours).verdict, Verdict::Ok);
    for taken in [Port::Taken(None), Port::Taken(Some("broker-b".to_owned()))] {
        assert_eq!(judge_port(10911, &taken).verdict, Verdict::Fail);
    }
    let refused = Port::Refused("permission denied".to_owned());
    assert_eq!(judge_port(80, &refused).verdict, Verdict::Fail);
}

#[test]
fn a_port_that_somebody_else_holds_is_seen_as_taken() {
    let other = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = other.local_addr().expect("it is bound").port();
    let settings = crate::config::tests::settings(&[("bindAddress", "127.0.0.1")]);
    // It accepts and hangs up: no broker.
    let holder = std::thread::spawn(move || drop(other.accept()));
    assert_eq!(look(&settings, port), Port::Taken(None));
    holder.join().expect("it only accepts");
    assert_eq!(look(&settings, port), Port::Free);
}

#[test]
fn loopback_is_for_a_broker_without_others() {
    let mut here = seen("127.0.0.1:10911");
    assert_eq!(judge_advertised(&here).verdict, Verdict::Warn);
    here.alone = true;
    assert_eq!(judge_advertised(&here).verdict, Verdict::Ok);
    assert_eq!(
        judge_advertised(&seen("0.0.0.0:10911")).verdict,
        Verdict::Fail
    );
}

#[test]
fn an_address_of_another_machine_is_doubted_until_it_is_reached() {
    let mut mapped = seen("192.0.2.7:10911");
    mapped.own = false;
    assert_eq!(judge_advertised(&mapped).verdict, Verdict::Warn);
    mapped.answer = Some(Ok("broker-a".to_owned()));
    assert_eq!(judge_advertised(&mapped).verdict, Verdict::Ok);
    mapped.answer = Some(Ok("broker-b".to_owned()));
    assert_eq!(judge_advertised(&mapped).verdict, Verdict::Fail);
    mapped.answer = Some(Err("timed out".to_owned()));
    assert_eq!(judge_advertised(&mapped).verdict, Verdict::Fail);
}

#[test]
fn listening_on_one_address_and_advertising_another_is_a_failure() {
    let mut own = seen("192.0.2.7:10911");
    assert_eq!(judge_advertised(&own).verdict, Verdict::Ok);
    own.bind = Ipv4Addr::new(192, 0, 2, 8).into();
    assert_eq!(judge_advertised(&own).verdict, Verdict::Fail);
}

fn me(running: bool) -> Me<'static> {
    Me {
        name: "broker-a",
        id: 0,
        address: "192.0.2.7:10911".to_owned(),
        running,
        embedded: false,
    }
}

fn cluster(address: &str) -> ClusterInfo {
    let mut info = ClusterInfo::default();
    let mut data = BrokerData {
        broker_name: "broker-a".to_owned(),
        ..BrokerData::default()
    };
    data.broker_addrs.insert(0, address.to_owned());
    info.broker_addr_table.insert("broker-a".to_owned(), data);
    info
}

#[test]
fn a_running_broker_should_be_known_to_its_name_servers() {
    let judged = |running, info: &ClusterInfo| {
        judge_registration(&me(running), "name server".to_owned(), info).verdict
    };
    assert_eq!(judged(true, &cluster("192.0.2.7:10911")), Verdict::Ok);
    assert_eq!(judged(true, &ClusterInfo::default()), Verdict::Warn);
    assert_eq!(judged(false, &ClusterInfo::default()), Verdict::Ok);
    assert_eq!(judged(false, &cluster("192.0.2.9:10911")), Verdict::Warn);
}

#[test]
fn one_silent_name_server_is_a_warning_and_all_silent_a_failure() {
    let silent = || (Err("refused".to_owned()), "ns1:9876".to_owned());
    let answering = (Ok(ClusterInfo::default()), "ns2:9876".to_owned());
    let some = judge_name_servers(&me(false), &[silent(), answering]);
    assert_eq!(
        (some[0].verdict, some[1].verdict),
        (Verdict::Warn, Verdict::Ok)
    );
    let all = judge_name_servers(&me(false), &[silent(), silent()]);
    assert!(all.iter().all(|finding| finding.verdict == Verdict::Fail));
    let embedded = Me {
        embedded: true,
        ..me(false)
    };
    assert_eq!(
        judge_name_servers(&embedded, &[silent()])[0].verdict,
        Verdict::Ok
    );
}
