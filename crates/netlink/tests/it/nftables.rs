//! Transactions, and what their rules do to real connections.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};

use netlink::nft::{
    Element, ElementData, Family, Hook, HookKind, HookPoint, KeyField, Layer4, Rule, Set, SetData,
    Transaction, Verdict, table_names,
};
use netlink::{Connection, netns};

const VIRTUAL: Ipv4Addr = Ipv4Addr::new(127, 9, 9, 9);

fn in_namespace(work: impl FnOnce() + Send) {
    let netns = netns::create().unwrap();
    netns::inside(&netns, || {
        let mut connection = Connection::open().unwrap();
        let lo = connection.link("lo").unwrap().unwrap().index;
        connection.set_up(lo).unwrap();
        work();
    })
    .unwrap();
}

fn server(name: &'static str) -> SocketAddrV4 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let std::net::SocketAddr::V4(address) = listener.local_addr().unwrap() else { panic!() };
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            stream.unwrap().write_all(name.as_bytes()).unwrap();
        }
    });
    address
}

fn ask(port: u16) -> std::io::Result<String> {
    let mut answer = String::new();
    TcpStream::connect((VIRTUAL, port))?.read_to_string(&mut answer)?;
    Ok(answer)
}

fn services() -> Set {
    Set {
        name: "services".into(),
        key: vec![KeyField::Address, KeyField::Layer4, KeyField::Port],
        data: SetData::Verdict,
        timeout_ms: None,
    }
}

fn base(transaction: &mut Transaction) {
    let hook = Hook { kind: HookKind::Nat, point: HookPoint::Output, priority: -100 };
    transaction.replace_table().add_set(&services()).add_chain("output", Some(hook));
    transaction.add_rule("output", &Rule::new().dispatch_by_destination("services"));
}

fn service(port: u16, chain: &str) -> Element {
    let verdict = Verdict::Goto(chain.to_owned());
    Element::service(VIRTUAL, Layer4::Tcp, port, ElementData::Verdict(verdict))
}

#[test]
fn a_service_is_spread_over_its_endpoints() {
    in_namespace(|| {
        let (a, b) = (server("a"), server("b"));
        let mut transaction = Transaction::new(Family::Ip, "test");
        base(&mut transaction);
        for (chain, to) in [("a", a), ("b", b)] {
            transaction.add_chain(chain, None);
            transaction.add_rule(chain, &Rule::new().layer4(Layer4::Tcp).dnat(to));
        }
        let endpoints = Set {
            name: "__map%d".into(),
            key: vec![KeyField::Number],
            data: SetData::Verdict,
            timeout_ms: None,
        };
        let verdicts = ["a", "b"].map(|chain| ElementData::Verdict(Verdict::Goto(chain.into())));
        let [to_a, to_b] = verdicts;
        let elements = [Element::number(0, to_a), Element::number(1, to_b)];
        transaction.add_chain("svc", None);
        let id = transaction.add_anonymous_map(&endpoints, &elements);
        transaction.add_rule("svc", &Rule::new().dispatch_at_random("__map%d", id, 2));
        transaction.add_elements("services", &[service(80, "svc")]);
        transaction.commit().unwrap();
        assert_eq!(table_names(Family::Ip).unwrap(), ["test"]);

        let answers: std::collections::BTreeSet<_> = (0..64).map(|_| ask(80).unwrap()).collect();
        assert_eq!(answers, ["a".to_owned(), "b".to_owned()].into());

        let mut change = Transaction::new(Family::Ip, "test");
        change.delete_elements("services", &[service(80, "svc")]);
        change.add_elements("services", &[service(81, "a")]);
        change.commit().unwrap();
        assert_eq!(ask(81).unwrap(), "a");
        assert!(ask(80).is_err());
    });
}

#[test]
fn a_transaction_is_applied_whole_or_not_at_all() {
    in_namespace(|| {
        let mut transaction = Transaction::new(Family::Ip, "test");
        transaction.add_table().add_chain("kept", None).delete_chain("absent");
        let error = transaction.commit().unwrap_err();
        assert_eq!(error.to_string(), "cannot delete chain absent in nftables table test");
        assert!(error.is_absent());
        assert!(table_names(Family::Ip).unwrap().is_empty());
    });
}

#[test]
fn affinity_sends_a_client_to_the_same_endpoint() {
    in_namespace(|| {
        let (a, b) = (server("a"), server("b"));
        let mut transaction = Transaction::new(Family::Ip, "test");
        base(&mut transaction);
        transaction.add_chain("svc", None);
        for (chain, to) in [("a", a), ("b", b)] {
            let seen = Set {
                name: format!("seen-{chain}"),
                key: vec![KeyField::Address],
                data: SetData::None,
                timeout_ms: Some(10_000),
            };
            let rule = Rule::new().remember_source(&seen.name, 10_000).layer4(Layer4::Tcp).dnat(to);
            transaction.add_set(&seen).add_chain(chain, None).add_rule(chain, &rule);
            transaction.add_rule("svc", &Rule::new().source_in(&seen.name, true).goto(chain));
        }
        transaction.add_rule("svc", &Rule::new().one_in(2).goto("a"));
        transaction.add_rule("svc", &Rule::new().goto("b"));
        transaction.add_elements("services", &[service(80, "svc")]);
        transaction.commit().unwrap();
        let answers: std::collections::BTreeSet<_> = (0..32).map(|_| ask(80).unwrap()).collect();
        assert_eq!(answers.len(), 1);
    });
}

#[test]
fn marks_networks_devices_and_rejects_are_accepted_and_work() {
    in_namespace(|| {
        let a = server("a");
        let mut transaction = Transaction::new(Family::Ip, "test");
        base(&mut transaction);
        let filter = Hook { kind: HookKind::Filter, point: HookPoint::Output, priority: 0 };
        let after = Hook { kind: HookKind::Nat, point: HookPoint::Postrouting, priority: 100 };
        let host_ports = Set {
            name: "ports".into(),
            key: vec![KeyField::Layer4, KeyField::Port],
            data: SetData::AddressPort,
            timeout_ms: None,
        };
        transaction.add_set(&host_ports).add_chain("filter", Some(filter));
        transaction
            .add_elements("ports", &[Element::port(Layer4::Tcp, 90, ElementData::AddressPort(a))]);
        let loopback = Ipv4Addr::new(127, 0, 0, 0);
        let rules = [
            Rule::new().destination(loopback, 8).layer4(Layer4::Tcp).destination_port(99).reject(),
            Rule::new()
                .destination_not(loopback, 8)
                .output_device("lo", false)
                .verdict(&Verdict::Drop),
            // Loopback has no address that a masqueraded packet could take, so nothing is marked.
            Rule::new().source_not(loopback, 8).connection_is_new().set_mark(0x4000),
        ];
        for rule in &rules {
            transaction.add_rule("filter", rule);
        }
        // Only where packets pass through: the error that answers a rejected first packet belongs
        // to no connection either.
        let forward = Hook { point: HookPoint::Forward, ..filter };
        let invalid = Rule::new().connection_is_invalid().verdict(&Verdict::Drop);
        transaction.add_chain("forward", Some(forward)).add_rule("forward", &invalid);
        let by_port = Rule::new().destination_is_local().dnat_by_port("ports");
        transaction.add_rule("output", &by_port).add_chain("after", Some(after));
        transaction.add_rule("after", &Rule::new().mark_lacks(0x4000).verdict(&Verdict::Return));
        transaction
            .add_rule("after", &Rule::new().mark_has(0x4000).clear_mark(0x4000).masquerade());
        transaction.commit().unwrap();
        assert_eq!(ask(90).unwrap(), "a");
        assert_eq!(ask(99).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn thousands_of_elements_fit_one_transaction() {
    in_namespace(|| {
        let mut transaction = Transaction::new(Family::Ip, "test");
        base(&mut transaction);
        transaction.add_chain("svc", None);
        let elements: Vec<_> = (1..20_000).map(|port| service(port, "svc")).collect();
        transaction.add_elements("services", &elements);
        transaction.commit().unwrap();
    });
}
