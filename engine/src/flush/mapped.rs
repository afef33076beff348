//! The `mmap` flusher: the log is written through mappings, a sync of the file makes it durable.

use crate::LogOffset;
use crate::commit_log::CommitLog;
use std::io;

/// Syncs everything that is written now, segment by segment, earlier ones first. The watermark follows each.
pub(super) async fn sync(log: &CommitLog) -> io::Result<()> {
    let to = log.written().0;
    let list = log.segments().load_full();
    for segment in list.items() {
        if segment.end() <= log.flushed().0 {
            continue;
        }
        if segment.base() >= to {
            break;
        }
        segment.file().sync_data().await?;
        log.publish_flushed(LogOffset(to.min(segment.end())));
    }
    Ok(())
}
