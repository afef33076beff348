//! `orbit-broker`: flags, sub-commands and log. Everything else is the library.

use std::io;
use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;

use clap::{Args, Parser, Subcommand};
use reactor::{mailbox, signals};
use server::broker::cores::Plan;
use server::config::{Given, Machine, Remark};
use server::{Broker, Settings, check, doctor, health};
use tracing_subscriber::EnvFilter;

/// Any address beyond this machine: connecting a datagram socket sends nothing, it only asks for the route.
const ELSEWHERE: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 9);

/// The OrbitMQ broker. Without flags it serves this machine: name server and broker in one, stored under ./data.
#[derive(Parser)]
#[command(name = "orbit-broker", version, args_conflicts_with_subcommands = true)]
struct Flags {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    sources: Sources,
    /// Print all settings and exit
    #[arg(short = 'p', long = "printConfigItem")]
    print: bool,
    /// Print all settings and exit (RocketMQ's shorter list)
    #[arg(short = 'm', long = "printImportantConfig")]
    print_important: bool,
}

/// Where the settings come from, in every command.
#[derive(Args)]
struct Sources {
    /// Settings file: RocketMQ's broker.conf
    #[arg(short = 'c', long = "configFile", value_name = "FILE")]
    config_file: Option<PathBuf>,
    /// Name servers, such as 10.0.0.1:9876;10.0.0.2:9876
    #[arg(short = 'n', long = "namesrvAddr", value_name = "ADDRESSES")]
    namesrv: Option<String>,
}

/// What this program does besides serving; without one of these words it is the broker.
#[derive(Subcommand)]
enum Command {
    /// Says in one line each what the broker needs of this machine and what it finds; exit code 0 good, 1 warnings, 2 failures
    Doctor {
        #[command(flatten)]
        sources: Sources,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Says in a word how the broker of these settings is; exit code 0 only if it is ready
    Health {
        #[command(flatten)]
        sources: Sources,
    },
    /// Verifies a store that no broker has open: every record, every index; exit code 0 clean, 1 problems, 2 cannot check
    Check {
        #[command(flatten)]
        sources: Sources,
        /// The store's directory (storePathRootDir); otherwise the one of the settings
        #[arg(long, value_name = "DIR")]
        store: Option<PathBuf>,
        /// A log directory, if it is not commitlog/ in the store; may be given several times
        #[arg(long, value_name = "DIR", requires = "store")]
        commitlog: Vec<PathBuf>,
        /// Make again what is damaged and derived from the log; the log itself is never written
        #[arg(long)]
        repair: bool,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    match flags.command {
        Some(Command::Doctor { sources, json }) => examine(&sources, json),
        Some(Command::Health { sources }) => match load(&sources) {
            Ok((settings, _)) => health::run(&settings),
            Err(problem) => fail(&problem),
        },
        Some(Command::Check {
            sources,
            store,
            commitlog,
            repair,
            json,
        }) => verify(&sources, store, commitlog, repair, json),
        None => broker(flags),
    }
}

/// Checks the store that is named, or else the one of the settings.
fn verify(
    sources: &Sources,
    store: Option<PathBuf>,
    log_dirs: Vec<PathBuf>,
    repair: bool,
    json: bool,
) -> ExitCode {
    let (store, log_dirs) = match store {
        Some(store) => (store, log_dirs),
        None => match load(sources) {
            Ok((settings, _)) => (settings.store_root, settings.log_dirs),
            Err(problem) => return fail(&problem),
        },
    };
    check::run(check::Options {
        store,
        log_dirs,
        repair,
        json,
    })
}

/// Prints what the doctor finds, and nothing else.
fn examine(sources: &Sources, json: bool) -> ExitCode {
    let report = match load(sources) {
        Ok((settings, remarks)) => doctor::examine(&settings, &remarks),
        Err(problem) => doctor::Report::of_broken_settings(&problem),
    };
    print!(
        "{}",
        if json {
            report.to_json()
        } else {
            report.to_string()
        }
    );
    ExitCode::from(report.exit_code())
}

fn broker(flags: Flags) -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stdout)
        .with_target(false)
        .with_ansi(false)
        // A line that cannot be written, because the disk is full, is lost; told on standard error it would panic there.
        .log_internal_errors(false)
        .init();
    let settings = match settings(&flags.sources) {
        Ok(settings) => settings,
        Err(problem) => return fail(&problem),
    };
    if flags.print || flags.print_important {
        print!("{}", settings.to_properties());
        return ExitCode::SUCCESS;
    }
    if let Err(error) = reactor::raise_open_files() {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
    if let Err(unsupported) = reactor::probe() {
        return fail(&unsupported.to_string());
    }
    // Before any other thread exists, so that all of them leave the signals to the one that waits.
    let signals = signals::block();
    let place = Plan::of(&settings, reactor::cpu_count())
        .shards
        .swap_remove(0);
    let config_file = flags.sources.config_file;
    match reactor::run(place.config("shard-0"), move || {
        serve(settings, config_file, signals)
    }) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(problem)) => fail(&problem),
        Err(error) => fail(&error.to_string()),
    }
}

async fn serve(
    settings: Settings,
    config_file: Option<PathBuf>,
    signals: signals::Blocked,
) -> Result<(), String> {
    let (stop, mut stopped) = mailbox::channel(1);
    thread::spawn(move || {
        let name = signals.wait();
        // A full mailbox means that the broker is stopping already.
        let _ = stop.try_send(name);
    });
    let name = settings.broker_name.clone();
    let address = settings.advertised();
    let name_servers = match &settings.address_server {
        Some(server) => format!("named by {}", server.url),
        None => settings.namesrv_list().join(";"),
    };
    let broker = Broker::start(settings, config_file)
        .await
        .map_err(|error| error.to_string())?;
    // Scripts wait for this very line.
    println!(
        "The broker[{name}, {address}] boot success. serializeType=JSON and name server is {name_servers}"
    );
    println!("Connect clients to the name server {name_servers}");
    let signal = stopped.recv().await.unwrap_or("its own decision");
    tracing::info!(signal, "stopping");
    broker.stop().await.map_err(|error| {
        format!("the log was not closed cleanly, the next start will recover it: {error}")
    })?;
    tracing::info!("stopped");
    Ok(())
}

/// The settings, with what is to be said about them in the log.
fn settings(sources: &Sources) -> Result<Settings, String> {
    let (settings, remarks) = load(sources)?;
    for remark in remarks {
        match remark {
            Remark::Warning(text) => tracing::warn!("{text}"),
            Remark::Detail(text) => tracing::debug!("{text}"),
        }
    }
    Ok(settings)
}

fn load(sources: &Sources) -> Result<(Settings, Vec<Remark>), String> {
    let file = match &sources.config_file {
        Some(path) => Some(
            std::fs::read_to_string(path)
                .map_err(|error| format!("{}: {error}", path.display()))?,
        ),
        None => None,
    };
    let given = Given {
        namesrv_env: std::env::var("NAMESRV_ADDR").ok(),
        file,
        namesrv_flag: sources.namesrv.clone(),
    };
    Settings::load(&machine(), &given).map_err(|invalid| match &sources.config_file {
        Some(path) => format!("{}: {invalid}", path.display()),
        None => invalid.to_string(),
    })
}

fn machine() -> Machine {
    let host_name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    Machine {
        host_name: host_name.trim().to_owned(),
        address: outward_address().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        home: std::env::home_dir().unwrap_or_else(|| Path::new(".").to_owned()),
        resolve: address_of,
    }
}

/// The first address that a host has; one of IPv4 if there is one.
fn address_of(host: &str) -> io::Result<IpAddr> {
    let addresses = (host, 0).to_socket_addrs()?.map(|address| address.ip());
    addresses
        .min_by_key(IpAddr::is_ipv6)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "it has no address"))
}

/// The address from which this machine talks to others; None without a route.
fn outward_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(ELSEWHERE).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

fn fail(problem: &str) -> ExitCode {
    tracing::error!("{problem}");
    ExitCode::FAILURE
}
