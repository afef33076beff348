use super::*;

/// Settings for tests of other rooms.
pub fn settings(pairs: &[(&str, &str)]) -> Settings {
    Settings::from_pairs(&machine(), pairs).expect("valid settings")
}

pub fn machine() -> Machine {
    Machine {
        host_name: "box.example".to_owned(),
        address: IpAddr::from([192, 168, 1, 5]),
        home: PathBuf::from("/home/me"),
        resolve: |name| match name {
            "broker-0.brokers" => Ok(IpAddr::from([10, 1, 2, 3])),
            _ => Err(io::Error::other("no such host")),
        },
    }
}

fn from_file(text: &str) -> Result<(Settings, Vec<Remark>), Invalid> {
    let given = Given {
        file: Some(text.to_owned()),
        ..Given::default()
    };
    Settings::load(&machine(), &given)
}

fn warnings(remarks: &[Remark]) -> Vec<&str> {
    remarks
        .iter()
        .filter_map(|remark| match remark {
            Remark::Warning(text) => Some(text.as_str()),
            Remark::Detail(_) => None,
        })
        .collect()
}

#[test]
fn without_a_file_it_serves_this_machine_from_data() {
    let (settings, remarks) = Settings::load(&machine(), &Given::default()).expect("defaults");
    assert_eq!(settings.store_root, PathBuf::from("data"));
    assert_eq!(settings.log_dirs, [PathBuf::from("data/commitlog")]);
    assert_eq!(settings.advertised().to_string(), "127.0.0.1:10911");
    assert_eq!(settings.namesrv_list(), ["127.0.0.1:9876"]);
    assert_eq!(settings.fast_listen_port, Some(10_909));
    assert_eq!(settings.ha_listen_port, 10_912);
    assert_eq!(settings.broker_name, "box-example");
    assert_eq!(settings.default_topic_queues, 8);
    assert!(remarks.is_empty());
}

#[test]
fn with_a_file_it_serves_the_network_from_home() {
    let (settings, _) = from_file("brokerName = broker-a\n").expect("valid");
    assert_eq!(settings.store_root, PathBuf::from("/home/me/store"));
    assert_eq!(settings.advertised().to_string(), "192.168.1.5:10911");
    assert_eq!(settings.broker_name, "broker-a");
}

#[test]
fn a_specific_bind_address_is_what_clients_are_told() {
    let (settings, _) = from_file("bindAddress=127.0.0.2\nlistenPort=20911\n").expect("valid");
    assert_eq!(settings.advertised().to_string(), "127.0.0.2:20911");
    assert_eq!(settings.namesrv_list(), ["127.0.0.2:9876"]);
    assert_eq!(settings.ha_address(), "127.0.0.2:20912");
}

#[test]
fn the_flag_beats_the_file_and_the_file_the_environment() {
    let mut given = Given {
        namesrv_env: Some("env:1".to_owned()),
        ..Given::default()
    };
    let load = |given: &Given| {
        Settings::load(&machine(), given)
            .expect("valid")
            .0
            .namesrv_addrs
    };
    assert_eq!(load(&given), ["env:1"]);
    given.file = Some("namesrvAddr=file:2;other:3".to_owned());
    assert_eq!(load(&given), ["file:2", "other:3"]);
    given.namesrv_flag = Some("flag:4".to_owned());
    assert_eq!(load(&given), ["flag:4"]);
}

#[test]
fn old_spellings_are_understood() {
    let (settings, remarks) = from_file("mapedFileSizeCommitLog: 104857600\n").expect("valid");
    assert_eq!(settings.segment_bytes, 104_857_600);
    assert!(warnings(&remarks).is_empty());
}

#[test]
fn unknown_keys_are_warned_about_with_the_nearest_known_one() {
    let (_, remarks) = from_file("autoCreateTopicEnabled=false\n").expect("valid");
    assert_eq!(
        warnings(&remarks),
        [
            "unknown setting autoCreateTopicEnabled=false has no effect (did you mean autoCreateTopicEnable?)"
        ]
    );
}

#[test]
fn what_this_version_lacks_is_said_once_it_is_asked_for() {
    let (_, remarks) = from_file("lockInStrictMode=true\nslaveReadEnable=false\n").expect("valid");
    assert_eq!(warnings(&remarks).len(), 1);
    assert!(warnings(&remarks)[0].starts_with("lockInStrictMode=true"));
}

#[test]
fn bad_values_are_refused_with_key_value_and_range() {
    let refused = |text: &str| from_file(text).expect_err(text).to_string();
    assert_eq!(
        refused("listenPort=99999"),
        "listenPort=99999: expected a whole number from 1 to 65535"
    );
    assert_eq!(
        refused("autoCreateTopicEnable=yes"),
        "autoCreateTopicEnable=yes: expected true or false"
    );
    assert!(refused("namesrvAddr=localhost").starts_with("namesrvAddr=localhost: expected"));
    assert_eq!(
        refused("brokerIP1=here"),
        "brokerIP1=here: expected an IP address, or the name of a host that has one (no such host)"
    );
    assert!(refused("brokerRole=SLAVE").contains("does not replicate"));
    assert!(refused("messageDelayLevel=1s 2y").contains("expected durations"));
}

#[test]
fn one_of_several_brokers_with_the_same_data_is_not_started_as_a_master_of_its_own() {
    let raft = "brokerName=RaftNode00\nenableDLegerCommitLog=true\ndLegerGroup=RaftNode00\ndLegerSelfId=n0\n";
    let elected =
        "brokerId=-1\nbrokerRole=SLAVE\nenableControllerMode=true\ncontrollerAddr=127.0.0.1:9878\n";
    let container = "listenPort=10811\nbrokerConfigPaths=/conf/a.conf:/conf/b.conf\n";
    for (file, key, way_out) in [
        (
            raft,
            "enableDLegerCommitLog=true",
            "brokerRole=ASYNC_MASTER",
        ),
        (
            elected,
            "enableControllerMode=true",
            "brokerRole=ASYNC_MASTER",
        ),
        (
            container,
            "brokerConfigPaths=/conf/a.conf",
            "start one for each of these files",
        ),
    ] {
        let refused = from_file(file).expect_err(key).to_string();
        assert!(refused.starts_with(key), "{refused}");
        assert!(refused.contains(way_out), "{refused}");
    }
    assert!(from_file("enableDLegerCommitLog=false\nenableControllerMode=false\n").is_ok());
}

#[test]
fn a_sync_master_is_told_that_nothing_is_replicated() {
    let (settings, remarks) = from_file("brokerRole=SYNC_MASTER\n").expect("valid");
    assert_eq!(settings.role, Role::SyncMaster);
    assert_eq!(warnings(&remarks).len(), 1);
    assert!(warnings(&remarks)[0].contains("does not replicate"));
    let (_, remarks) = from_file("brokerRole=ASYNC_MASTER\n").expect("valid");
    assert!(warnings(&remarks).is_empty());
}

#[test]
fn a_broker_that_is_reached_by_name_registers_the_name_and_stores_the_address() {
    let text = "brokerIP1=broker-0.brokers\nbrokerIP2=broker-0.brokers\nlistenPort=20911\n";
    let (settings, _) = from_file(text).expect("valid");
    assert_eq!(settings.registered(), "broker-0.brokers:20911");
    assert_eq!(settings.ha_address(), "broker-0.brokers:20912");
    assert_eq!(settings.advertised().to_string(), "10.1.2.3:20911");
    assert_eq!(settings.value("brokerIP1"), Some("broker-0.brokers"));
    // A change in the running broker asks nobody for the address again.
    let change = [("brokerPermission".to_owned(), "4".to_owned())];
    let (changed, _) = settings.changed(&change).expect("live");
    assert_eq!(changed.advertised().to_string(), "10.1.2.3:20911");
    assert_eq!(changed.registered(), "broker-0.brokers:20911");
}

#[test]
fn a_change_of_settings_keeps_the_name_servers_that_were_fetched() {
    let (settings, _) = from_file("fetchNamesrvAddrByAddressServer=true\n").expect("valid");
    assert!(!settings.embeds_name_server());
    assert!(settings.namesrv_list().is_empty(), "nobody was asked yet");
    let settings = settings.with_fetched(vec!["10.0.0.1:9876".to_owned()]);
    let change = [("brokerPermission".to_owned(), "4".to_owned())];
    let (changed, _) = settings.changed(&change).expect("live");
    assert_eq!(changed.namesrv_list(), ["10.0.0.1:9876"]);
}

#[test]
fn the_registration_period_stays_within_ten_and_sixty_seconds() {
    let period = |ms: &str| {
        from_file(&format!("registerNameServerPeriod={ms}"))
            .expect("valid")
            .0
            .register_period_ms
    };
    assert_eq!((period("1"), period("90000")), (10_000, 60_000));
}

#[test]
fn a_running_broker_takes_live_settings_and_refuses_the_others() {
    let settings = Settings::from_pairs(&machine(), &[("brokerName", "a")]).expect("valid");
    let change = |key: &str, value: &str| settings.changed(&[(key.to_owned(), value.to_owned())]);
    let (changed, _) = change("brokerPermission", "4").expect("live");
    assert_eq!(changed.broker_permission, 4);
    assert!(changed.to_properties().contains("\nbrokerPermission=4\n"));
    assert_eq!(
        change("listenPort", "1").expect_err("start only"),
        ChangeRefused::NeedsRestart("listenPort")
    );
    assert!(
        change("listenPort", "10911").is_ok(),
        "the same value again is no change"
    );
    assert_eq!(
        change("brokerConfigPath", "x").expect_err("listed"),
        ChangeRefused::BlackListed("brokerConfigPath".to_owned())
    );
    assert!(matches!(
        change("brokerPermission", "9"),
        Err(ChangeRefused::Invalid(_))
    ));
}

#[test]
fn hours_may_end_with_a_separator() {
    for (named, hours) in [("04;", 1 << 4), (";04;16;", 1 << 4 | 1 << 16)] {
        let settings = settings(&[("deleteWhen", named)]);
        assert_eq!(settings.retention.delete_hours, hours, "{named}");
    }
    for none in [";", "24", "4x"] {
        let refused = Settings::from_pairs(&machine(), &[("deleteWhen", none)]);
        assert!(refused.is_err(), "{none}");
    }
}

#[test]
fn nobody_changes_paths_addresses_classes_or_what_is_unknown_over_the_wire() {
    let settings = Settings::from_pairs(&machine(), &[("brokerName", "a")]).expect("valid");
    let change = |key: &str, value: &str| settings.changed(&[(key.to_owned(), value.to_owned())]);
    for key in ["rocketmqHome", "configBlackList", "brokerConfigPath"] {
        let refused = change(key, "x").expect_err(key);
        assert!(matches!(refused, ChangeRefused::BlackListed(_)), "{key}");
    }
    let refused = change("messageStorePlugIn", "com.example.Evil").expect_err("a class");
    assert_eq!(refused, ChangeRefused::NotHere("messageStorePlugIn"));
    assert_eq!(
        change("autoCreateTopicEnabled", "false")
            .expect_err("unknown")
            .to_string(),
        "unknown setting autoCreateTopicEnabled: did you mean autoCreateTopicEnable?"
    );
    assert!(change("filterServerPath", "/bin/sh").is_err());
    let dangerous = [
        "path", "dir", "home", "addr", "ip", "plugin", "class", "host", "target",
    ];
    for key in keys::all().filter(|key| changeable(key).is_ok()) {
        let name = key.name.to_lowercase();
        let word = dangerous
            .iter()
            .find(|word| name.ends_with(*word) || name.contains("path"));
        assert!(word.is_none(), "{} may be changed", key.name);
        let text = matches!(key.kind, keys::Kind::Text | keys::Kind::Ip);
        assert!(!text, "{} takes any text", key.name);
    }
}

#[test]
fn an_alias_does_not_lead_past_the_black_list() {
    let pairs = [
        ("brokerName", "a"),
        ("configBlackList", "transferMsgByHeap"),
    ];
    let settings = Settings::from_pairs(&machine(), &pairs).expect("valid");
    let change = |key: &str| settings.changed(&[(key.to_owned(), "false".to_owned())]);
    for key in ["transferMsgByHeap", "transferMessageByHeap"] {
        assert!(
            matches!(change(key), Err(ChangeRefused::BlackListed(_))),
            "{key}"
        );
    }
}

#[test]
fn the_flusher_is_the_one_that_is_named_or_fits_the_disks() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = dir.path().join("not").join("there").join("yet");
    let log = log.to_string_lossy();
    let of = |pairs: &[(&str, &str)]| settings(pairs).fitting_flusher();
    let fits = match reactor::fs::takes_direct_writes(dir.path()) {
        true => FlusherKind::Direct,
        false => FlusherKind::Mmap,
    };
    assert_eq!(of(&[("storePathCommitLog", &log)]), fits);
    // No file can be made there.
    let both = format!("{log},/proc/self");
    assert_eq!(of(&[("storePathCommitLog", &both)]), FlusherKind::Mmap);
    for (name, kind) in [("mmap", FlusherKind::Mmap), ("direct", FlusherKind::Direct)] {
        let named = [("storePathCommitLog", &*both), ("flusher", name)];
        assert_eq!(of(&named), kind);
    }
}
