//! What may be done with a topic's queues, as the bits of `perm`.

pub const INHERIT: i32 = 1;
pub const WRITE: i32 = 1 << 1;
pub const READ: i32 = 1 << 2;
pub const PRIORITY: i32 = 1 << 3;
pub const READ_WRITE: i32 = READ | WRITE;

pub fn is_readable(perm: i32) -> bool {
    perm & READ != 0
}

pub fn is_writable(perm: i32) -> bool {
    perm & WRITE != 0
}

pub fn is_inherited(perm: i32) -> bool {
    perm & INHERIT != 0
}

/// Whether a request may set this value.
pub fn is_valid(perm: i32) -> bool {
    (0..PRIORITY).contains(&perm)
}

/// As the command line prints it: `RW-`, `R--`, ...
pub fn to_text(perm: i32) -> String {
    let mark = |set: bool, letter: char| if set { letter } else { '-' };
    let marks = [
        mark(is_readable(perm), 'R'),
        mark(is_writable(perm), 'W'),
        mark(is_inherited(perm), 'X'),
    ];
    marks.iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_print_as_operators_know_them() {
        assert_eq!(to_text(6), "RW-");
        assert_eq!(to_text(7), "RWX");
        assert_eq!(to_text(4), "R--");
        assert_eq!(to_text(0), "---");
        assert!(is_valid(7) && !is_valid(8) && !is_valid(-1));
    }
}
