//! The order in which Java's `HashMap` yields its keys: a stock name server writes routes in it, and ours are compared with
//! them byte by byte. Buckets by the spread hash, keys of one bucket in the order they came.

use protocol::properties::tag_hash;

/// Java's default table size, and the least one.
const BUCKETS_MIN: usize = 16;

/// Sorts items as a `HashMap` of at least `buckets_min` buckets would yield them. `items` come in the order of insertion.
pub(super) fn sort_by_name<T>(items: &mut [T], name: impl Fn(&T) -> &str) {
    sort_in(items, BUCKETS_MIN, name);
}

/// The same for a table that starts with more buckets. Tables double when three quarters full.
pub(super) fn sort_in<T>(items: &mut [T], buckets_min: usize, name: impl Fn(&T) -> &str) {
    assert!(buckets_min.is_power_of_two());
    let mut buckets = buckets_min;
    while items.len() > buckets / 4 * 3 {
        buckets *= 2;
    }
    items.sort_by_cached_key(|item| bucket(name(item), buckets));
}

fn bucket(name: &str, buckets: usize) -> usize {
    let hash = tag_hash(name).cast_unsigned();
    (hash ^ (hash >> 16)) as usize & (buckets - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_in_the_order_of_javas_buckets() {
        // "a" hashes to 97 (bucket 1), "b" to 98 (2), "q" to 113 (1), "Z" to 90 (10).
        let mut names = vec!["Z", "b", "q", "a"];
        sort_by_name(&mut names, |name| name);
        assert_eq!(names, ["q", "a", "b", "Z"]);
    }

    #[test]
    fn a_table_doubles_beyond_three_quarters() {
        // In 16 buckets "q" falls beside "a"; in 32 it comes after every other letter here.
        let mut names: Vec<String> = (b'a'..=b'q')
            .map(|letter| char::from(letter).to_string())
            .collect();
        assert_eq!(names.len(), 17);
        sort_by_name(&mut names, |name| name);
        assert_eq!(names.first().map(String::as_str), Some("a"));
        assert_eq!(names.last().map(String::as_str), Some("q"));
    }
}
