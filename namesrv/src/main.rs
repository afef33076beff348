//! `orbit-namesrv`: the name server as a process of its own. Flags, log, signals; everything else is the library.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;

use clap::Parser;
use namesrv::{Config, NameServer};
use reactor::{CoreConfig, mailbox, signals};
use tracing_subscriber::EnvFilter;

/// The OrbitMQ name server: brokers register their topics with it, clients ask it who serves a topic.
#[derive(Parser)]
#[command(name = "orbit-namesrv", version)]
struct Flags {
    /// Settings file (Java properties, RocketMQ's keys)
    #[arg(short = 'c', long = "configFile", value_name = "FILE")]
    config_file: Option<PathBuf>,
    /// Print all settings and exit
    #[arg(short = 'p', long = "printConfigItem")]
    print: bool,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        // A line that cannot be written, because the disk is full, is lost; told on standard error it would panic there.
        .log_internal_errors(false)
        .init();
    let config = match config(&flags) {
        Ok(config) => config,
        Err(error) => return fail(&error),
    };
    if flags.print {
        print!("{}", config.to_properties());
        return ExitCode::SUCCESS;
    }
    if let Err(error) = reactor::raise_open_files() {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
    if let Err(error) = reactor::probe() {
        return fail(&error.to_string());
    }
    // Before any other thread exists, so that all of them leave the signals to the one that waits.
    let signals = signals::block();
    let core = CoreConfig {
        name: "namesrv".to_owned(),
        ..CoreConfig::default()
    };
    match reactor::run(core, move || serve(config, signals)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => fail(&error.to_string()),
        Err(error) => fail(&error.to_string()),
    }
}

async fn serve(config: Config, signals: signals::Blocked) -> io::Result<()> {
    let server = NameServer::start(config)?;
    let addr = server.local_addr();
    // Scripts wait for this very line.
    println!("The Name Server boot success. serializeType=JSON, address {addr}");
    let (stop, mut stopped) = mailbox::channel(1);
    thread::spawn(move || {
        let name = signals.wait();
        // A full mailbox means that the server is stopping already.
        let _ = stop.try_send(name);
    });
    let signal = stopped.recv().await.unwrap_or("its own decision");
    tracing::info!(signal, "stopping");
    server.stop().await;
    Ok(())
}

fn config(flags: &Flags) -> Result<Config, String> {
    let mut config = match &flags.config_file {
        None => Config::default(),
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(|error| format!("{}: {error}", path.display()))?;
            let config =
                Config::parse(&text).map_err(|error| format!("{}: {error}", path.display()))?;
            // What is changed at run time goes back to where it was read from.
            Config {
                config_store_path: Some(path.clone()),
                ..config
            }
        }
    };
    let home = std::env::home_dir().map(|home| home.join("namesrv"));
    if config.kv_config_path.is_none() {
        config.kv_config_path = home.as_ref().map(|home| home.join("kvConfig.json"));
    }
    if config.config_store_path.is_none() {
        config.config_store_path = home.as_ref().map(|home| home.join("namesrv.properties"));
    }
    Ok(config)
}

fn fail(reason: &str) -> ExitCode {
    tracing::error!("{reason}");
    ExitCode::FAILURE
}
