//! What a manager is called.

/// Bytes in the name of a manager; upstream's.
pub const NAME_MAX: usize = 128;

/// The manager that a request names, or else the program that sends it.
pub fn manager_name(field_manager: &str, user_agent: &str) -> String {
    let name = match field_manager {
        "" => from_user_agent(user_agent),
        name => name.to_owned(),
    };
    if name.is_empty() { "unknown".to_owned() } else { name }
}

/// What stands before the first slash, as far as it can be printed and is not too long.
fn from_user_agent(user_agent: &str) -> String {
    let program = user_agent.split('/').next().unwrap_or_default();
    let mut name = String::new();
    for c in program.chars().filter(|c| is_printable(*c)) {
        if name.len() + c.len_utf8() > NAME_MAX {
            break;
        }
        name.push(c);
    }
    name
}

/// Whether Go calls a character printable: anything one sees, and the space.
pub fn is_printable(c: char) -> bool {
    c == ' ' || !(c.is_control() || c.is_whitespace() || is_invisible(c))
}

/// Formatting characters, surrogates' neighbours and private use.
fn is_invisible(c: char) -> bool {
    matches!(u32::from(c),
        0xad | 0x600..=0x605 | 0x61c | 0x6dd | 0x70f | 0x180e
        | 0x200b..=0x200f | 0x202a..=0x202e | 0x2060..=0x206f
        | 0xe000..=0xf8ff | 0xfeff | 0xfff0..=0xfffb | 0xe_0000..=0x10_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_called_by_what_is_before_the_slash() {
        assert_eq!(manager_name("", "kubectl/v1.36 (linux/amd64)"), "kubectl");
        assert_eq!(manager_name("mine", "kubectl/v1.36"), "mine");
        assert_eq!(manager_name("", ""), "unknown");
        assert_eq!(manager_name("", "a\u{7}b\u{200b}c/1"), "abc");
        assert_eq!(manager_name("", &"ä".repeat(100)).len(), NAME_MAX);
    }
}
