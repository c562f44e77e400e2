//! Bearer tokens from a file: `token,user,uid,"group1,group2"` per line.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::user::UserInfo;

/// The tokens of one file.
#[derive(Default)]
pub struct StaticTokens {
    users: HashMap<String, UserInfo>,
}

/// Why a token file was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// The file cannot be read.
    #[error("cannot read the token file {}", .0.display())]
    Io(PathBuf, #[source] std::io::Error),
    /// A line has too few columns.
    #[error("line {0} of the token file must have at least 3 columns (token, user name, user uid)")]
    Columns(usize),
}

impl StaticTokens {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read or a line has fewer than three columns.
    pub fn read(path: &Path) -> Result<Self, TokenFileError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| TokenFileError::Io(path.to_path_buf(), error))?;
        Self::parse(&text)
    }

    /// Reads the text of a file. Empty tokens are left out, later lines win.
    ///
    /// # Errors
    /// When a line has fewer than three columns.
    pub fn parse(text: &str) -> Result<Self, TokenFileError> {
        let mut users = HashMap::new();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let columns = columns(line);
            let [token, name, uid, rest @ ..] = columns.as_slice() else {
                return Err(TokenFileError::Columns(number + 1));
            };
            if token.is_empty() {
                continue;
            }
            let mut user = UserInfo::new(name.clone(), &[]);
            user.uid.clone_from(uid);
            if let Some(groups) = rest.first().filter(|groups| !groups.is_empty()) {
                user.groups = groups.split(',').map(|group| group.trim().to_owned()).collect();
            }
            users.insert(token.clone(), user);
        }
        Ok(Self { users })
    }

    /// The user of a token.
    pub fn user(&self, token: &str) -> Option<&UserInfo> {
        self.users.get(token)
    }
}

/// Splits one line of CSV; quotes may hold commas, and doubled quotes stand for one.
fn columns(line: &str) -> Vec<String> {
    let mut columns = vec![String::new()];
    let mut is_quoted = false;
    let mut chars = line.trim().chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if is_quoted && chars.peek() == Some(&'"') => {
                chars.next();
                push(&mut columns, '"');
            }
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => columns.push(String::new()),
            c => push(&mut columns, c),
        }
    }
    columns.into_iter().map(|column| column.trim().to_owned()).collect()
}

fn push(columns: &mut [String], c: char) {
    if let Some(last) = columns.last_mut() {
        last.push(c);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_may_be_quoted() {
        let tokens = StaticTokens::parse("t1,admin,1,\"a,b\"\nt2,joe,2\n\n").unwrap();
        assert_eq!(tokens.user("t1").unwrap().groups, ["a", "b"]);
        assert_eq!(tokens.user("t2").unwrap().name, "joe");
        assert_eq!(tokens.user("t3"), None);
    }

    #[test]
    fn a_short_line_is_refused() {
        assert!(matches!(StaticTokens::parse("a,b"), Err(TokenFileError::Columns(1))));
    }
}
