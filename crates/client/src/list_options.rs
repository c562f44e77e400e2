//! The query of a list or a watch.

use std::fmt::Write as _;

use meta::ResourceVersion;

/// What to list or watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListOptions {
    /// A label selector in its string form, or empty.
    pub label_selector: String,
    /// A field selector in its string form, or empty.
    pub field_selector: String,
    /// Objects per page; 0 asks for all of them.
    pub limit: u32,
    /// The token of the page before.
    pub continue_token: String,
}

impl ListOptions {
    /// Everything.
    pub fn all() -> Self {
        Self::default()
    }

    /// What has these labels.
    pub fn labels(selector: impl Into<String>) -> Self {
        Self { label_selector: selector.into(), ..Self::default() }
    }

    /// What has these fields.
    pub fn fields(selector: impl Into<String>) -> Self {
        Self { field_selector: selector.into(), ..Self::default() }
    }

    pub(crate) fn list_query(&self) -> String {
        let mut query = Query::default();
        self.selectors(&mut query);
        if self.limit > 0 {
            query.add("limit", &self.limit.to_string());
        }
        if !self.continue_token.is_empty() {
            query.add("continue", &self.continue_token);
        }
        query.0
    }

    pub(crate) fn watch_query(&self, from: ResourceVersion, timeout_seconds: u32) -> String {
        let mut query = Query::default();
        query.add("watch", "true");
        query.add("allowWatchBookmarks", "true");
        query.add("resourceVersion", &from.to_string());
        query.add("timeoutSeconds", &timeout_seconds.to_string());
        self.selectors(&mut query);
        query.0
    }

    fn selectors(&self, query: &mut Query) {
        if !self.label_selector.is_empty() {
            query.add("labelSelector", &self.label_selector);
        }
        if !self.field_selector.is_empty() {
            query.add("fieldSelector", &self.field_selector);
        }
    }
}

/// A query string under construction, its leading `?` included.
#[derive(Default)]
pub(crate) struct Query(pub(crate) String);

impl Query {
    pub(crate) fn add(&mut self, key: &str, value: &str) {
        self.0.push(if self.0.is_empty() { '?' } else { '&' });
        self.0.push_str(key);
        self.0.push('=');
        percent_encode(value, &mut self.0);
    }
}

fn percent_encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            write!(out, "%{byte:02X}").ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_percent_encoded() {
        let options = ListOptions { limit: 5, ..ListOptions::labels("app in (a,b)") };
        assert_eq!(options.list_query(), "?labelSelector=app%20in%20%28a%2Cb%29&limit=5");
        assert_eq!(ListOptions::all().list_query(), "");
    }
}
