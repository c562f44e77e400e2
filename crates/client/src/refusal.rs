//! What an answer without success means.

use http::Method;
use http::response::Parts;
use meta::{GroupResource, Status};

use crate::ClientError;

/// The status of the answer; one in upstream's words when the server gave none.
pub(crate) fn refused(
    method: &Method,
    path_and_query: &str,
    answer: &Parts,
    body: &[u8],
) -> ClientError {
    match serde_json::from_slice::<Status>(body) {
        Ok(status) if status.kind == "Status" => return status.into(),
        _ => {}
    }
    let status = Status::of_answer(method, answer, body);
    match subject(path_and_query) {
        Some((resource, name)) => status.about(method, &resource, name).into(),
        None => status.into(),
    }
}

/// The resource a path is about, and the name of the object, if it is about one.
fn subject(path_and_query: &str) -> Option<(GroupResource, &str)> {
    let path = path_and_query.split('?').next()?;
    let mut parts = path.strip_prefix('/')?.split('/');
    let group = match parts.next()? {
        "api" => "",
        "apis" => parts.next()?,
        _ => return None,
    };
    let _version = parts.next()?;
    let mut resource = parts.next()?;
    let mut name = parts.next().unwrap_or_default();
    // What follows a namespace is in it, but for the subresources of the namespace itself.
    if resource == "namespaces"
        && let Some(inner) = parts.next().filter(|part| !matches!(*part, "status" | "finalize"))
    {
        (resource, name) = (inner, parts.next().unwrap_or_default());
    }
    Some((GroupResource { group: group.to_owned(), resource: resource.to_owned() }, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_say_what_they_are_about() {
        let of = |path| subject(path).map(|(resource, name)| format!("{resource} {name}"));
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(of("/apis/metrics.k8s.io/v1beta1/pods?limit=1"), some("pods.metrics.k8s.io "));
        assert_eq!(of("/api/v1/namespaces/a/pods/b/status"), some("pods b"));
        assert_eq!(of("/apis/apps/v1/namespaces/a/deployments"), some("deployments.apps "));
        assert_eq!(of("/api/v1/namespaces/a"), some("namespaces a"));
        assert_eq!(of("/api/v1/namespaces/a/finalize"), some("namespaces a"));
        assert_eq!(of("/api/v1/nodes/n"), some("nodes n"));
        assert_eq!(of("/apis/apps/v1"), None);
        assert_eq!(of("/version"), None);
    }

    #[test]
    fn an_answer_without_a_status_is_told_by_its_code() {
        let answer = http::Response::builder().status(404).body(()).unwrap().into_parts().0;
        let path = "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods";
        let error = refused(&Method::GET, path, &answer, b"404 page not found\n");
        assert!(error.is_not_found());
        assert_eq!(
            error.to_string(),
            "the server could not find the requested resource (get pods.metrics.k8s.io)"
        );
        let own = br#"{"kind":"Status","message":"no","reason":"NotFound","code":404}"#;
        assert_eq!(refused(&Method::GET, path, &answer, own).to_string(), "no");
    }
}
