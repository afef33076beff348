//! One name server and one broker, started with their own configuration in a folder of their own.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use clap::Args;
use tempfile::TempDir;

use crate::child::Child;
use crate::control::{Control, resolve};
use crate::error::{Error, Result};
use crate::page_cache;
use crate::wire::request;

pub const ORBIT: &str = "orbitmq";
pub const ROCKETMQ: &str = "rocketmq";
/// As every broker that is started here calls itself.
pub const BROKER_NAME: &str = "bench";

#[derive(Args, Clone)]
pub struct Orbit {
    /// OrbitMQ's broker; its name server lies beside it [default: beside this program]
    #[arg(long)]
    orbit_broker: Option<PathBuf>,
    /// Where stores are kept; removed afterwards [default: the temporary folder]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Where memory is kept that outlives a killed broker; removed afterwards
    #[arg(long, default_value = "/dev/shm")]
    window_dir: PathBuf,
    /// Further lines for OrbitMQ's broker.conf, such as shards=2
    #[arg(long)]
    orbit_set: Vec<String>,
}

#[derive(Args, Clone)]
pub struct RocketMq {
    /// Folder with RocketMQ's jars, as scripts/fetch-rocketmq leaves it
    #[arg(long, default_value = "target/rocketmq-5.4.0/lib")]
    rocketmq_lib: PathBuf,
    /// Heap of RocketMQ's broker
    #[arg(long, default_value = "4g")]
    pub heap: String,
    /// Further lines for RocketMQ's broker.conf
    #[arg(long)]
    rocketmq_set: Vec<String>,
}

/// What is to be started, and as whom.
#[derive(Clone)]
pub struct Recipe {
    pub name: &'static str,
    program: Program,
    ports: Ports,
    settings: Vec<String>,
}

#[derive(Clone)]
enum Program {
    Orbit { broker: PathBuf, windows: PathBuf },
    RocketMq { lib: PathBuf, heap: String },
}

pub struct Contender {
    pub name: &'static str,
    pub broker: SocketAddr,
    home: PathBuf,
    namesrv_process: Child,
    broker_process: Child,
    /// Goes after the processes.
    windows: Option<TempDir>,
}

/// The broker also listens two below and one above its port.
#[derive(Clone, Copy)]
struct Ports {
    namesrv: u16,
    broker: u16,
}

/// Of the contender that was there first and of the one that is measured beside it.
const PORTS: [Ports; 2] = [
    Ports {
        namesrv: 20_206,
        broker: 20_211,
    },
    Ports {
        namesrv: 20_226,
        broker: 20_231,
    },
];
const START_LIMIT: Duration = Duration::from_secs(120);
const STOP_LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
/// What is measured is not to be deleted because the disk is short.
const KEEPS_LOG: &str = "cleanFileForciblyEnable=false";

/// What the JVM needs since Java 17 to let RocketMQ reach into it.
const JVM_OPENS: &str = "--add-exports=java.base/jdk.internal.ref=ALL-UNNAMED --add-opens=java.base/java.nio=ALL-UNNAMED \
    --add-exports=java.base/sun.nio.ch=ALL-UNNAMED --add-opens=java.base/sun.nio.ch=ALL-UNNAMED \
    --add-opens=java.base/java.lang=ALL-UNNAMED --add-opens=java.base/java.util=ALL-UNNAMED";
/// The settings that RocketMQ's own start script gives its broker.
const JVM_BROKER: &str = "-server -XX:+UseG1GC -XX:G1HeapRegionSize=16m -XX:G1ReservePercent=25 \
    -XX:InitiatingHeapOccupancyPercent=30 -XX:SoftRefLRUPolicyMSPerMB=0 -XX:-OmitStackTraceInFastThrow \
    -XX:+AlwaysPreTouch -XX:MaxDirectMemorySize=15g -XX:-UseLargePages";
/// Warnings only, to standard output; else RocketMQ writes its logs into the home folder.
const LOGBACK: &str = r#"<configuration><appender name="o" class="ch.qos.logback.core.ConsoleAppender"><encoder><pattern>%d %p %c - %m%n</pattern></encoder></appender><root level="WARN"><appender-ref ref="o"/></root></configuration>"#;

impl Orbit {
    /// A folder for stores that is removed when it is dropped.
    pub fn folder(&self) -> Result<TempDir> {
        let mut named = tempfile::Builder::new();
        named.prefix("orbit-bench-");
        let made = match &self.dir {
            Some(dir) => named.tempdir_in(dir),
            None => named.tempdir(),
        };
        made.map_err(Error::io("making a folder for the stores"))
    }

    pub fn broker(&self) -> Result<PathBuf> {
        let broker = match &self.orbit_broker {
            Some(path) => path.clone(),
            None => beside_this_program("orbit-broker")?,
        };
        absolute(&broker)
    }

    pub fn recipe(&self) -> Result<Recipe> {
        Ok(Recipe {
            name: ORBIT,
            program: Program::Orbit {
                broker: self.broker()?,
                windows: self.window_dir.clone(),
            },
            ports: PORTS[0],
            settings: self.orbit_set.clone(),
        })
    }
}

impl RocketMq {
    pub fn recipe(&self) -> Result<Recipe> {
        let lib = absolute(&self.rocketmq_lib).map_err(|_| {
            let lib = self.rocketmq_lib.display();
            Error::Failed(format!(
                "no jars in {lib}: run scripts/fetch-rocketmq, or give --rocketmq-lib"
            ))
        })?;
        Ok(Recipe {
            name: ROCKETMQ,
            program: Program::RocketMq {
                lib,
                heap: self.heap.clone(),
            },
            ports: PORTS[1],
            settings: self.rocketmq_set.clone(),
        })
    }
}

impl Recipe {
    /// The same under another name, on the other's ports.
    pub fn beside(self, name: &'static str) -> Recipe {
        Recipe {
            name,
            ports: PORTS[1],
            ..self
        }
    }

    pub fn named(self, name: &'static str) -> Recipe {
        Recipe { name, ..self }
    }

    /// One more line of broker.conf; a later line goes before an earlier one.
    pub fn with(mut self, line: &str) -> Recipe {
        self.settings.push(line.to_owned());
        self
    }

    pub fn is_jvm(&self) -> bool {
        matches!(self.program, Program::RocketMq { .. })
    }

    /// Starts name server and broker with their files under `home` and waits until both listen.
    pub fn start(&self, home: &Path) -> Result<Contender> {
        let mut settings = Vec::new();
        let windows = self.windows()?;
        if let Some(windows) = &windows {
            settings.push(format!("windowDir={}", windows.path().display()));
        }
        settings.extend_from_slice(&self.settings);
        let conf = write_confs(home, &self.ports, &settings)?;
        let (namesrv, broker) = match &self.program {
            Program::Orbit { broker, .. } => orbit_commands(broker, &conf),
            Program::RocketMq { lib, heap } => rocketmq_commands(lib, heap, home, &conf)?,
        };
        let [namesrv_process, broker_process] =
            start(self.name, &self.ports, home, &namesrv, &broker)?;
        Ok(Contender {
            name: self.name,
            broker: resolve(&format!("127.0.0.1:{}", self.ports.broker))?,
            home: home.to_owned(),
            namesrv_process,
            broker_process,
            windows,
        })
    }

    /// A folder of shared memory, so that what a killed broker leaves there goes with the contender.
    fn windows(&self) -> Result<Option<TempDir>> {
        match &self.program {
            Program::Orbit { windows, .. } if windows.is_dir() => tempfile::Builder::new()
                .prefix("orbit-bench-")
                .tempdir_in(windows)
                .map(Some)
                .map_err(Error::io("making a folder of shared memory")),
            _ => Ok(None),
        }
    }
}

fn orbit_commands(broker: &Path, conf: &Confs) -> (String, String) {
    let namesrv = broker.with_file_name("orbit-namesrv");
    (
        format!("'{}' -c '{}'", namesrv.display(), conf.namesrv.display()),
        format!("'{}' -c '{}'", broker.display(), conf.broker.display()),
    )
}

fn rocketmq_commands(
    lib: &Path,
    heap: &str,
    home: &Path,
    conf: &Confs,
) -> Result<(String, String)> {
    let logging = home.join("conf");
    fs::create_dir_all(&logging).map_err(Error::io("making the folder for logging"))?;
    for role in ["namesrv", "broker"] {
        let file = logging.join(format!("logback_{role}.xml"));
        fs::write(file, LOGBACK).map_err(Error::io("writing the logging configuration"))?;
    }
    let java = |memory: &str, class: &str, conf: &Path| {
        format!(
            "env ROCKETMQ_HOME='{home}' java {memory} -Duser.home='{home}' {JVM_OPENS} -cp '{lib}/*' {class} -c '{conf}'",
            home = home.display(),
            lib = lib.display(),
            conf = conf.display()
        )
    };
    let namesrv = java(
        "-Xmx256m",
        "org.apache.rocketmq.namesrv.NamesrvStartup",
        &conf.namesrv,
    );
    let memory = format!("-Xms{heap} -Xmx{heap} {JVM_BROKER}");
    let broker = java(
        &memory,
        "org.apache.rocketmq.broker.BrokerStartup",
        &conf.broker,
    );
    Ok((namesrv, broker))
}

struct Confs {
    namesrv: PathBuf,
    broker: PathBuf,
}

/// The same keys for both: this is what a user's files look like.
fn write_confs(home: &Path, ports: &Ports, further: &[String]) -> Result<Confs> {
    fs::create_dir_all(home).map_err(Error::io(format!("making {}", home.display())))?;
    let confs = Confs {
        namesrv: home.join("namesrv.conf"),
        broker: home.join("broker.conf"),
    };
    let namesrv = format!(
        "listenPort={}\nbindAddress=127.0.0.1\nrocketmqHome={}\n",
        ports.namesrv,
        home.display()
    );
    let store = home.join("store");
    let broker = format!(
        "brokerName={BROKER_NAME}\nbrokerClusterName=DefaultCluster\nbrokerId=0\nbrokerIP1=127.0.0.1\nbindAddress=127.0.0.1\n\
         namesrvAddr=127.0.0.1:{}\nlistenPort={}\nhaListenPort={}\nstorePathRootDir={store}\n\
         storePathCommitLog={store}/commitlog\nautoCreateTopicEnable=true\nflushDiskType=ASYNC_FLUSH\n",
        ports.namesrv,
        ports.broker,
        ports.broker + 1,
        store = store.display()
    );
    let broker = overruled(broker.lines().chain([KEEPS_LOG]), further);
    fs::write(&confs.namesrv, namesrv)
        .and_then(|()| fs::write(&confs.broker, broker))
        .map_err(Error::io("writing the configurations"))?;
    Ok(confs)
}

/// Each key once, as the last line that has it says.
fn overruled<'a>(lines: impl Iterator<Item = &'a str>, further: &'a [String]) -> String {
    let key = |line: &'a str| line.split('=').next().unwrap_or(line).trim();
    let all: Vec<&str> = lines.chain(further.iter().map(String::as_str)).collect();
    let mut text = String::new();
    for (index, line) in all.iter().enumerate() {
        if !all[index + 1..].iter().any(|later| key(later) == key(line)) {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

fn start(
    name: &'static str,
    ports: &Ports,
    home: &Path,
    namesrv: &str,
    broker: &str,
) -> Result<[Child; 2]> {
    for port in [ports.namesrv, ports.broker] {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Err(Error::Failed(format!(
                "port {port} is taken; {name} was to listen there"
            )));
        }
    }
    let mut first = Child::start(namesrv, &home.join("namesrv.log"))?;
    wait_until_listening(name, ports.namesrv, &mut first)?;
    let mut second = Child::start(broker, &home.join("broker.log"))?;
    wait_until_listening(name, ports.broker, &mut second)?;
    Ok([first, second])
}

/// Until it answers: the socket of a process that has just ended may still take connections for a moment.
fn wait_until_listening(name: &str, port: u16, child: &mut Child) -> Result<()> {
    let deadline = Instant::now() + START_LIMIT;
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let answers = || Control::connect(address)?.ask(request::GET_BROKER_RUNTIME_INFO, &[], b"");
    while answers().is_err() {
        if !child.is_alive() || Instant::now() > deadline {
            let log = child.log_tail();
            return Err(Error::Failed(format!(
                "{name} does not listen on port {port}; its log ends with:\n{log}"
            )));
        }
        thread::sleep(POLL);
    }
    Ok(())
}

impl Contender {
    pub fn broker_pid(&self) -> u32 {
        self.broker_process.pid()
    }

    pub fn store(&self) -> PathBuf {
        self.home.join("store")
    }

    /// How often a task of OrbitMQ has held its core for more than 10 ms: it names each in its log.
    pub fn stalls(&self) -> u64 {
        self.broker_process.logged_lines("held its core too long") as u64
    }

    /// Bytes of the log that OrbitMQ read again when it last opened the store, as it logs; `None` if it does not.
    pub fn reread_bytes(&self) -> Option<f64> {
        self.broker_process.logged_number("read_bytes")
    }

    pub fn log_tail(&self) -> String {
        self.broker_process.log_tail()
    }

    /// Takes both processes off the CPU while the other side is measured.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        self.namesrv_process.signal(signal)?;
        self.broker_process.signal(signal)
    }

    /// Stops the broker as an operator would, forgets what the page cache holds of its store, and starts it again.
    pub fn restart_cold(self) -> Result<Contender> {
        self.restart(page_cache::forget)
    }

    /// The same with something else happening to the store meanwhile.
    pub fn restart(self, between: impl FnOnce(&Path) -> Result<()>) -> Result<Contender> {
        let store = self.store();
        let restarted = self
            .broker_process
            .restart(STOP_LIMIT, || between(&store))?;
        let mut again = Contender {
            broker_process: restarted,
            ..self
        };
        wait_until_listening(again.name, again.broker.port(), &mut again.broker_process)?;
        Ok(again)
    }

    /// SIGKILL for the broker.
    pub fn kill(&mut self) -> Result<()> {
        self.broker_process.kill()
    }

    /// Starts a killed broker again and waits for nothing.
    pub fn start_again(self) -> Result<Contender> {
        Ok(Contender {
            broker_process: self.broker_process.start_again()?,
            ..self
        })
    }

    /// What a power cut takes with it besides the process: all memory, the page cache and shared windows included.
    /// The broker must be dead.
    pub fn lose_memory(&self) -> Result<()> {
        if let Some(windows) = &self.windows {
            let failed = || Error::io("emptying the shared memory");
            for window in page_cache::files_under(windows.path()).map_err(failed())? {
                fs::remove_file(window).map_err(failed())?;
            }
        }
        page_cache::forget(&self.store())
    }

    /// As an operator would; the broker must end with exit code 0.
    pub fn stop(self) -> Result<()> {
        self.resume()?;
        let name = self.name;
        let code = self.broker_process.stop(STOP_LIMIT)?;
        self.namesrv_process.stop(STOP_LIMIT)?;
        match code {
            Some(0) => Ok(()),
            // A JVM that ends by SIGTERM says so.
            Some(143) => Ok(()),
            code => Err(Error::Failed(format!(
                "{name} stopped with exit code {code:?}"
            ))),
        }
    }
}

fn beside_this_program(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().map_err(Error::io("finding this program"))?;
    Ok(own.with_file_name(name))
}

fn absolute(path: &Path) -> Result<PathBuf> {
    path.canonicalize()
        .map_err(Error::io(format!("looking for {}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_further_line_replaces_the_one_with_its_key() {
        let further = ["b=3".to_owned(), "c=4".to_owned(), "b = 5".to_owned()];
        assert_eq!(overruled("a=1\nb=2".lines(), &further), "a=1\nc=4\nb = 5\n");
    }
}
