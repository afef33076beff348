//! What is written: a table for people, JSON for programs.

use std::io::{ErrorKind, Write};

use comfy_table::{Cell, CellAlignment, Table, presets};
use serde::Serialize;

/// Blanks between two columns.
const COLUMN_GAP: u16 = 2;

pub struct Output {
    pub json: bool,
}

impl Output {
    /// Rows as a table, or all that is known of them as JSON. A head that begins with `#` is over numbers.
    pub fn rows<T: Serialize>(&self, all: &[T], heads: &[&str], row: impl Fn(&T) -> Vec<String>) {
        if self.json {
            return self.value(&all);
        }
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        table.set_header(heads.iter().map(|head| head.trim_start_matches('#')));
        for one in all {
            let cells = row(one).into_iter().zip(heads).map(|(text, head)| {
                let side = match head.starts_with('#') {
                    true => CellAlignment::Right,
                    false => CellAlignment::Left,
                };
                Cell::new(text).set_alignment(side)
            });
            table.add_row(cells);
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, COLUMN_GAP));
        }
        write(&table.trim_fmt());
    }

    /// JSON, whatever was asked for.
    pub fn value<T: Serialize>(&self, value: &T) {
        match serde_json::to_string_pretty(value) {
            Ok(text) => write(&text),
            Err(error) => eprintln!("orbit-admin: {error}"),
        }
    }

    /// That something is done: a sentence, or what it was as JSON.
    pub fn done<T: Serialize>(&self, value: &T, sentence: &str) {
        match self.json {
            true => self.value(value),
            false => write(sentence),
        }
    }

    /// A sentence for people only.
    pub fn note(&self, sentence: &str) {
        if !self.json {
            write(sentence);
        }
    }
}

/// A reader that has seen enough, as `head` does, is no failure.
fn write(text: &str) {
    if let Err(error) = writeln!(std::io::stdout(), "{text}")
        && error.kind() != ErrorKind::BrokenPipe
    {
        eprintln!("orbit-admin: {error}");
    }
}

/// A rate, with as many digits as it is worth.
pub fn rate(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        value if value < 10.0 => format!("{value:.2}"),
        value => format!("{value:.0}"),
    }
}
