//! Endpoints of zones, and whom they serve.

use serde_json::json;

use super::*;

const FAMILY: AddressType = AddressType::Ipv4;

fn shares(zones: &[(&str, f64)]) -> Shares {
    zones.iter().map(|(zone, share)| ((*zone).to_owned(), *share)).collect()
}

fn parent() -> Parent {
    Parent {
        namespace: "n".to_owned(),
        name: "svc".to_owned(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        trigger: None,
        owner: serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Service", "name": "svc", "uid": "u" }))
        .unwrap(),
    }
}

/// A slice of endpoints: where each is, and whom it serves. A zone in capitals has one that is not
/// ready.
fn slice(name: &str, endpoints: &[(&str, &str)]) -> EndpointSlice {
    let endpoint = |(at, (zone, serves)): (usize, &(&str, &str))| {
        let hints = (!serves.is_empty()).then(|| json!({ "forZones": [{ "name": serves }] }));
        let own = (!zone.is_empty()).then(|| zone.to_lowercase());
        json!({ "addresses": [format!("10.1.0.{at}")], "zone": own, "hints": hints,
            "conditions": { "ready": zone.to_lowercase() == *zone } })
    };
    serde_json::from_value(json!({
        "metadata": { "name": name }, "addressType": "IPv4", "ports": [],
        "endpoints": endpoints.iter().enumerate().map(endpoint).collect::<Vec<_>>(),
    }))
    .unwrap()
}

/// Whom the endpoints of a slice serve; `-` where there is no hint.
fn served(slice: &EndpointSlice) -> String {
    let zone = |endpoint: &Endpoint| {
        let hints = endpoint.hints.as_ref();
        hints.map_or("-".to_owned(), |hints| hints.for_zones.as_ref().unwrap()[0].name.clone())
    };
    let zones: Vec<_> = slice.endpoints.iter().flatten().map(zone).collect();
    zones.join("")
}

/// What becomes of new endpoints in these zones: whom they serve, and how many serve each.
fn check(zones: &[(&str, f64)], endpoints: &[&str], expected: Result<(&str, &[u32]), Refusal>) {
    let endpoints: Vec<_> = endpoints.iter().map(|zone| (*zone, "")).collect();
    let mut plan = Plan { create: vec![slice("new", &endpoints)], ..Plan::default() };
    let result = assign(&parent(), FAMILY, Some(&shares(zones)), &[], &mut plan);
    let served = served(&plan.create[0]);
    let counts: Result<Vec<u32>, Refusal> = result.map(|by_zone| by_zone.into_values().collect());
    match expected {
        Ok((zones, expected)) => {
            assert_eq!((served.as_str(), counts.unwrap().as_slice()), (zones, expected));
        }
        Err(refusal) => {
            assert_eq!(counts, Err(refusal));
            assert!(served.chars().all(|c| c == '-'), "{served}");
        }
    }
}

const HALVES: [(&str, f64); 2] = [("a", 0.5), ("b", 0.5)];

#[test]
fn endpoints_serve_their_own_zone_where_they_can() {
    check(&HALVES, &["a", "b"], Ok(("ab", &[1, 1])));
    check(&HALVES, &["a", "A", "b"], Ok(("a-b", &[1, 1])));
    check(&HALVES, &["a", "a", "a", "b"], Ok(("baab", &[2, 2])));
    check(&HALVES, &["a", "a"], Ok(("ba", &[1, 1])));
}

#[test]
fn a_zone_gets_endpoints_in_proportion_to_its_nodes() {
    let zones = [("a", 0.75), ("b", 0.25)];
    check(&zones, &["a", "b", "b", "b"], Ok(("aaab", &[3, 1])));
    // Half an endpoint more is none.
    check(&zones, &["a", "a", "a", "a", "b", "b"], Ok(("aaaabb", &[4, 2])));
}

#[test]
fn endpoints_of_a_zone_without_nodes_are_not_taken() {
    check(&HALVES, &["c", "c", "a", "b"], Ok(("ccab", &[1, 1, 2])));
}

/// Which slices are written for a new endpoint in zone `b` when there are others already.
fn rewritten(present: &[EndpointSlice]) -> Vec<(String, String)> {
    let present: Vec<_> = present.iter().cloned().map(Arc::new).collect();
    let mut plan = Plan { create: vec![slice("new", &[("b", "")])], ..Plan::default() };
    assign(&parent(), FAMILY, Some(&shares(&HALVES)), &present, &mut plan).unwrap();
    let name = |slice: &EndpointSlice| slice.metadata.name.clone().unwrap();
    plan.written(FAMILY).map(|slice| (name(slice), served(slice))).collect()
}

#[test]
fn slices_whose_hints_do_are_left_alone() {
    let written = |name: &str, served: &str| (name.to_owned(), served.to_owned());
    assert_eq!(rewritten(&[slice("one", &[("a", "a")])]), [written("new", "b")]);
    // A hint is missing.
    let more = [slice("one", &[("a", "a"), ("b", "")]), slice("two", &[("a", "a")])];
    assert_eq!(rewritten(&more), [written("new", "b"), written("one", "ab")]);
    // There are no nodes there any more.
    let gone = [slice("one", &[("a", "c")])];
    assert_eq!(rewritten(&gone), [written("new", "b"), written("one", "a")]);
    // Too many serve one zone.
    let many = [slice("one", &[("a", "a"), ("a", "a"), ("b", "a")])];
    assert_eq!(rewritten(&many), [written("new", "b"), written("one", "aab")]);
}

#[test]
fn what_cannot_be_has_no_hints() {
    let (ready, zones) = (1, 2);
    check(&HALVES, &["a", "A"], Err(Refusal::Few { ready, zones }));
    check(&HALVES, &["a", ""], Err(Refusal::NoZone));
    // Three for each zone would do, and there are five.
    check(&HALVES, &["a", "a", "b", "b", "b"], Err(Refusal::Overload { ready: 5, zones }));
    let mut plan = Plan { create: vec![slice("new", &[("a", ""), ("b", "")])], ..Plan::default() };
    assert_eq!(assign(&parent(), FAMILY, None, &[], &mut plan), Err(Refusal::Nodes));
}

#[test]
fn hints_that_were_are_taken_away() {
    let present = [slice("one", &[("a", "a")]), slice("two", &[("a", "")])].map(Arc::new);
    let mut plan = Plan::default();
    assert_eq!(assign(&parent(), FAMILY, None, &present, &mut plan), Err(Refusal::Nodes));
    let written: Vec<_> = plan.written(FAMILY).map(|slice| served(slice)).collect();
    assert_eq!(written, ["-"]);
}

#[test]
fn a_zone_is_overloaded_with_too_few_endpoints() {
    let overloaded = |zones: &[(&str, f64)], counts: &[(&str, u32)]| {
        let counts = counts.iter().map(|(zone, count)| ((*zone).to_owned(), *count)).collect();
        is_overloaded(&counts, Some(&shares(zones)))
    };
    assert!(!overloaded(&HALVES, &[("a", 1), ("b", 1)]));
    assert!(!overloaded(&HALVES, &[("a", 10), ("b", 14)]));
    assert!(overloaded(&HALVES, &[("a", 9), ("b", 15)]));
    assert!(overloaded(&HALVES, &[("a", 2)]));
    assert!(!overloaded(&HALVES, &[]));
    assert!(is_overloaded(&ByZone::from([("a".to_owned(), 1)]), None));
}
