//! Real files through the ring.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reactor::{Buffer, CoreConfig, File, OpenOptions, run, spawn, timeout};

fn on_core<T: 'static, Fut: Future<Output = T> + 'static>(main: impl FnOnce() -> Fut) -> T {
    run(CoreConfig::default(), main).expect("io_uring is there")
}

fn read_write() -> OpenOptions {
    OpenOptions {
        read: true,
        write: true,
        create: true,
        ..OpenOptions::default()
    }
}

/// Not /tmp: that may be a file system without direct I/O.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn filled(len: usize, byte: u8) -> Buffer {
    let mut buffer = Buffer::with_capacity(len);
    buffer.set_len(len);
    buffer.fill(byte);
    buffer
}

async fn write_then_read(path: &Path, options: OpenOptions) {
    let file = File::open(path, options).unwrap();
    for block in 0..8u8 {
        let (written, _) = file
            .write_at(filled(8192, block), u64::from(block) * 8192)
            .await;
        assert_eq!(written.unwrap(), 8192);
    }
    file.sync_data().await.unwrap();
    assert_eq!(file.len().unwrap(), 8 * 8192);
    let (read, buffer) = file
        .read_at(Buffer::with_capacity(8192), 3 * 8192, 8192)
        .await;
    assert_eq!(read.unwrap(), 8192);
    assert!(buffer.iter().all(|&byte| byte == 3));
    let (read, buffer) = file
        .read_at(Buffer::with_capacity(16384), 7 * 8192, 16384)
        .await;
    assert_eq!(read.unwrap(), 8192, "a read ends with the file");
    assert_eq!(buffer.len(), 8192);
}

#[test]
fn what_was_written_is_read_back() {
    on_core(|| async {
        let directory = directory();
        write_then_read(&directory.path().join("buffered"), read_write()).await;
    });
}

#[test]
fn direct_and_synchronous_files_read_back_too() {
    on_core(|| async {
        let directory = directory();
        let options = OpenOptions {
            direct: true,
            dsync: true,
            ..read_write()
        };
        let path = directory.path().join("direct");
        if File::open(&path, options).is_err() {
            return; // a file system without direct I/O
        }
        write_then_read(&path, options).await;
    });
}

#[test]
fn errors_of_the_system_come_back_with_the_buffer() {
    on_core(|| async {
        let directory = directory();
        let path = directory.path().join("read-only");
        std::fs::write(&path, b"content").unwrap();
        let file = File::open(
            &path,
            OpenOptions {
                read: true,
                ..OpenOptions::default()
            },
        )
        .unwrap();
        let (written, buffer) = file.write_at(filled(4096, 1), 0).await;
        assert_eq!(written.unwrap_err().raw_os_error(), Some(libc::EBADF));
        assert_eq!(buffer.len(), 4096);
        assert!(File::open(&directory.path().join("none/file"), read_write()).is_err());
    });
}

#[test]
fn an_abandoned_read_keeps_its_buffer_and_its_file_until_it_is_done() {
    on_core(|| async {
        let directory = directory();
        let path = directory.path().join("file");
        std::fs::write(&path, vec![7; 8 << 20]).unwrap();
        for _ in 0..50 {
            let file = Arc::new(File::open(&path, read_write()).unwrap());
            let reader = file.clone();
            let task = spawn("read", async move {
                let buffer = Buffer::with_capacity(8 << 20);
                reader.read_at(buffer, 0, 8 << 20).await.0
            });
            // Polled once: the read is queued, maybe not yet submitted.
            reactor::yield_now().await;
            task.cancel();
            drop(file);
            // Would take the freed number and memory if they were free.
            let other = File::open(&directory.path().join("other"), read_write()).unwrap();
            let zeros = filled(8 << 20, 0);
            let (written, zeros) = other.write_at(zeros, 0).await;
            assert_eq!(written.unwrap(), zeros.len());
            assert!(zeros.iter().all(|&byte| byte == 0));
        }
    });
}

#[test]
fn a_mapping_shows_what_is_written_to_the_file() {
    on_core(|| async {
        let directory = directory();
        let file = File::open(&directory.path().join("mapped"), read_write()).unwrap();
        file.allocate(1 << 20).unwrap();
        assert_eq!(file.len().unwrap(), 1 << 20);
        let mapping = file.map(1 << 20).unwrap();
        mapping.populate(100, 500_000).unwrap();
        assert!(mapping.resident(0, 500_000));
        // SAFETY: nothing else touches the mapping now.
        unsafe { mapping.bytes_mut(5000, 3) }.copy_from_slice(b"abc");
        let (read, buffer) = file.read_at(Buffer::with_capacity(3), 5000, 3).await;
        assert_eq!(read.unwrap(), 3);
        assert_eq!(&buffer[..], b"abc");
        let (written, _) = file.write_at(filled(3, b'x'), 5000).await;
        written.unwrap();
        // SAFETY: the write is complete.
        assert_eq!(unsafe { mapping.bytes(4999, 5) }, b"\0xxx\0");
        mapping.dont_need(0, 1 << 20).unwrap();
    });
}

#[test]
#[should_panic(expected = "lie outside a mapping")]
fn a_range_outside_a_mapping_is_refused() {
    let directory = directory();
    let file = File::open(&directory.path().join("mapped"), read_write()).unwrap();
    file.set_len(4096).unwrap();
    let mapping = file.map(4096).unwrap();
    // SAFETY: it panics before it reads.
    let _ = unsafe { mapping.bytes(4000, 97) };
}

#[test]
fn many_more_reads_than_the_ring_has_entries_complete() {
    let tiny = CoreConfig {
        ring_entries: 4,
        ..CoreConfig::default()
    };
    let ran = run(tiny, || async {
        let directory = directory();
        let path = directory.path().join("file");
        let content: Vec<u8> = (0..4096u32).flat_map(|n| n.to_be_bytes()).collect();
        std::fs::write(&path, &content).unwrap();
        let file = Arc::new(File::open(&path, read_write()).unwrap());
        let reads: Vec<_> = (0..4096u64)
            .map(|n| {
                let file = file.clone();
                spawn("read", async move {
                    let (read, buffer) = file.read_at(Buffer::with_capacity(4), n * 4, 4).await;
                    read.unwrap();
                    assert_eq!(buffer[..], (n as u32).to_be_bytes());
                })
            })
            .collect();
        for read in reads {
            timeout(Duration::from_secs(20), read)
                .await
                .unwrap()
                .unwrap();
        }
    });
    ran.expect("io_uring is there");
}

#[test]
#[ignore = "takes two GiB of memory"]
fn a_read_longer_than_one_operation_reads_all() {
    const LEN: usize = (1 << 30) + 8192;
    on_core(|| async {
        let directory = directory();
        let path = directory.path().join("sparse");
        let file = File::open(&path, read_write()).unwrap();
        file.set_len(LEN as u64).unwrap();
        file.write_all_at_blocking(b"the end", LEN as u64 - 7)
            .unwrap();
        let (read, buffer) = file.read_at(Buffer::with_capacity(LEN), 0, LEN).await;
        assert_eq!(read.unwrap(), LEN);
        assert!(buffer.ends_with(b"the end"));
    });
}
