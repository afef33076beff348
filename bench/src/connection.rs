//! One non-blocking connection with whole-frame input and many frames per write. It lives on the generator's thread.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::wire::FRAME_BYTES_MAX;

const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// Room that is offered to every read; one pull answer of 32 messages of 1 KiB fits in.
const READ_BYTES: usize = 256 << 10;

pub struct Connection {
    pub stream: TcpStream,
    input: Vec<u8>,
    /// Bytes of `input` that hold data.
    filled: usize,
    output: Vec<u8>,
    written: usize,
}

impl Connection {
    pub fn open(address: SocketAddr) -> io::Result<Connection> {
        let stream = TcpStream::connect_timeout(&address, CONNECT_LIMIT)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Connection {
            stream,
            input: vec![0; READ_BYTES],
            filled: 0,
            output: Vec::with_capacity(64 << 10),
            written: 0,
        })
    }

    /// Where frames to be sent are appended; `flush` sends them.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// Writes what it can; the rest waits for the next call.
    pub fn flush(&mut self) -> io::Result<()> {
        while self.written < self.output.len() {
            match self.stream.write(&self.output[self.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.output.clear();
        self.written = 0;
        Ok(())
    }

    /// Reads until the socket is empty, giving every whole frame (without its length word) to `each`.
    pub fn read(&mut self, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        loop {
            let room = self.input.len() - self.filled;
            match self.stream.read(&mut self.input[self.filled..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    self.filled += count;
                    self.split(&mut each)?;
                    if count < room {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn split(&mut self, each: &mut impl FnMut(&[u8])) -> io::Result<()> {
        let mut at = 0;
        while let Some(word) = self.input[at..self.filled].first_chunk::<4>() {
            let len = u32::from_be_bytes(*word) as usize;
            if len > FRAME_BYTES_MAX {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("a frame of {len} bytes"),
                ));
            }
            if self.filled - at < 4 + len {
                if self.input.len() < 4 + len {
                    self.input.resize(4 + len + READ_BYTES, 0);
                }
                break;
            }
            each(&self.input[at + 4..at + 4 + len]);
            at += 4 + len;
        }
        self.input.copy_within(at..self.filled, 0);
        self.filled -= at;
        Ok(())
    }
}
