//! The control socket: a line in, a line out, except for marks, which are many and get no answer. Also the other end,
//! for those who send commands.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use fuser::Notifier;

use crate::disk::Disk;
use crate::faults::{Command, parse};
use crate::mount::inode_number;

/// Listens until the process ends.
pub fn serve(path: &Path, disk: Arc<Mutex<Disk>>, notifier: Notifier) -> io::Result<()> {
    let listener = UnixListener::bind(path)?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (disk, notifier) = (disk.clone(), notifier.clone());
            thread::spawn(move || {
                // Who hangs up in the middle of a line has said nothing.
                let _ = converse(stream, &disk, &notifier);
            });
        }
    });
    Ok(())
}

fn converse(stream: UnixStream, disk: &Mutex<Disk>, notifier: &Notifier) -> io::Result<()> {
    let mut to = stream.try_clone()?;
    for line in BufReader::new(stream).lines() {
        let answer = match parse(&line?) {
            Ok(Command::Mark(text)) => {
                let marked = disk.lock().expect("no operation panics").mark(text);
                match marked {
                    Ok(()) => continue,
                    Err(errno) => Err(io::Error::from_raw_os_error(errno).to_string()),
                }
            }
            Ok(command) => obey(command, disk, notifier),
            Err(complaint) => Err(complaint),
        };
        match answer {
            Ok(text) => writeln!(to, "ok {text}")?,
            Err(text) => writeln!(to, "error {}", text.replace('\n', "; "))?,
        }
    }
    Ok(())
}

fn obey(command: Command, disk: &Mutex<Disk>, notifier: &Notifier) -> Result<String, String> {
    let mut damaged = match &command {
        Command::Flip(flip) => vec![flip.path.clone()],
        Command::Bad(bad) => vec![bad.path.clone()],
        _ => Vec::new(),
    };
    let (done, inodes) = {
        let mut disk = disk.lock().expect("no operation panics");
        if command == Command::Clear {
            damaged = disk.damaged();
        }
        let find = |path: &String| {
            let found = disk.names().live().find(path);
            found.map(|(id, _)| inode_number(id, disk.cuts()))
        };
        let inodes: Vec<_> = damaged.iter().map(find).collect();
        if command != Command::Clear && inodes.contains(&None) {
            return Err(format!("there is no {}", damaged.join(" ")));
        }
        (disk.command(command), inodes)
    };
    // What the kernel still has in memory would hide the damage, or go on showing it.
    for inode in inodes.into_iter().flatten() {
        notifier
            .inval_inode(inode, 0, 0)
            .map_err(|error| error.to_string())?;
    }
    done.map_err(|errno| io::Error::from_raw_os_error(errno).to_string())
}

/// The other end.
pub struct Control {
    to: UnixStream,
    from: BufReader<UnixStream>,
}

impl Control {
    pub fn connect(path: &Path) -> io::Result<Control> {
        let to = UnixStream::connect(path)?;
        let from = BufReader::new(to.try_clone()?);
        Ok(Control { to, from })
    }

    /// The answer's text, or what was wrong.
    pub fn ask(&mut self, line: &str) -> io::Result<String> {
        writeln!(self.to, "{line}")?;
        let mut answer = String::new();
        self.from.read_line(&mut answer)?;
        match answer.trim_end().split_once(' ') {
            Some(("ok", text)) => Ok(text.to_owned()),
            Some((_, text)) => Err(io::Error::other(text.to_owned())),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Lines that begin with `mark `, each with its end; nobody answers.
    pub fn mark(&mut self, lines: &str) -> io::Result<()> {
        self.to.write_all(lines.as_bytes())
    }
}
