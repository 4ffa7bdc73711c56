//! How numbers are said.

use crate::gate::size::Size;
use crate::gate::threshold::count;

/// "1 key", "12,480 indexes": the noun as it is for one and for many.
pub(crate) fn plural(n: usize, one: &str, many: &str) -> String {
    if n == 1 {
        format!("1 {one}")
    } else {
        format!("{} {many}", count(n as u64))
    }
}

/// "never", "once", "12,480 times".
pub(crate) fn times(n: u64) -> String {
    match n {
        0 => "never".to_owned(),
        1 => "once".to_owned(),
        n => format!("{} times", count(n)),
    }
}

/// "512 B", "1.5 MB", in powers of 1024.
pub(crate) fn bytes(n: u64) -> String {
    Size(n).to_string()
}

/// "a", "a and b", "a, b and 12 more".
pub(crate) fn some_of(names: &[String], most: usize) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        names if names.len() <= most => {
            let (last, first) = names.split_last().expect("there are at least two");
            format!("{} and {last}", first.join(", "))
        }
        names => format!(
            "{} and {} more",
            names[..most].join(", "),
            count((names.len() - most) as u64)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_cut() {
        let names = |n: usize| (0..n).map(|n| n.to_string()).collect::<Vec<_>>();
        assert_eq!(some_of(&names(1), 3), "0");
        assert_eq!(some_of(&names(3), 3), "0, 1 and 2");
        assert_eq!(some_of(&names(5), 3), "0, 1, 2 and 2 more");
    }
}
