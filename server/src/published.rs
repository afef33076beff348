//! A value that one task replaces as a whole and every core may read.
//!
//! Readers keep their own copy and compare versions (one atomic load); the short lock is taken only after a change.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Lives on all cores; published by its one owner.
#[derive(Debug)]
pub struct Published<T> {
    inner: Arc<Inner<T>>,
}

#[derive(Debug)]
struct Inner<T> {
    /// Raised after the value was replaced, so that a reader who sees a version finds a value at least that new.
    version: AtomicU64,
    value: Mutex<T>,
}

impl<T> Clone for Published<T> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<T: Clone> Published<T> {
    pub fn new(value: T) -> Self {
        Self {
            inner: Arc::new(Inner {
                version: AtomicU64::new(1),
                value: Mutex::new(value),
            }),
        }
    }

    /// Starts at 1 and grows with every `publish`.
    pub fn version(&self) -> u64 {
        self.inner.version.load(Ordering::Acquire)
    }

    pub fn load(&self) -> T {
        self.inner
            .value
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub fn publish(&self, value: T) {
        let old = {
            let mut slot = self
                .inner
                .value
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *slot, value)
        };
        self.inner.version.fetch_add(1, Ordering::Release);
        // A large table is freed outside the lock.
        drop(old);
    }

    pub fn reader(&self) -> Reader<T> {
        // Version first: a value published in between is then read again, never missed.
        let version = self.version();
        Reader {
            source: self.clone(),
            version,
            value: self.load(),
        }
    }
}

/// One core's copy of a published value.
#[derive(Debug)]
pub struct Reader<T> {
    source: Published<T>,
    version: u64,
    value: T,
}

impl<T: Clone> Reader<T> {
    /// The newest value; costs one atomic load unless it changed.
    pub fn get(&mut self) -> &T {
        self.refresh();
        &self.value
    }

    /// Takes over a newer value, if there is one; true if so.
    pub fn refresh(&mut self) -> bool {
        let version = self.source.version();
        if version == self.version {
            return false;
        }
        self.version = version;
        self.value = self.source.load();
        true
    }

    /// As of the last `refresh`.
    pub fn value(&self) -> &T {
        &self.value
    }

    pub fn version(&self) -> u64 {
        self.version
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_sees_a_new_value_once_and_keeps_it() {
        let published = Published::new(1);
        let mut reader = published.reader();
        assert_eq!(*reader.get(), 1);
        published.publish(2);
        assert_eq!(*reader.value(), 1, "not before it asks");
        assert!(reader.refresh());
        assert!(!reader.refresh());
        assert_eq!(*reader.get(), 2);
    }

    #[test]
    fn versions_grow_with_every_publish() {
        let published = Published::new(());
        let first = published.version();
        published.publish(());
        published.clone().publish(());
        assert_eq!(published.version(), first + 2);
    }
}
