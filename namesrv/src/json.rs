//! Writing JSON straight into an answer's body.

/// Appends a comma unless this is the first of its list.
pub(crate) fn separate(out: &mut Vec<u8>, number: usize) {
    if number > 0 {
        out.push(b',');
    }
}

/// Appends a quoted string. The escapes are the ones stock name servers write.
pub(crate) fn append_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a string is JSON and memory takes it");
}

/// Appends a member's name (with what surrounds it) and its number.
pub(crate) fn append_number(out: &mut Vec<u8>, name: &[u8], number: i32) {
    out.extend_from_slice(name);
    out.extend_from_slice(number.to_string().as_bytes());
}
