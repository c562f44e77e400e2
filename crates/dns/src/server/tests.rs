//! Questions over UDP and TCP on loopback.

use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RData, RecordType};
use meta::ObjectKey;
use prometheus::Opts;

use super::*;
use crate::zone::Service;

fn query(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message.to_vec().unwrap()
}

fn resolver(upstreams: Upstreams) -> Arc<Resolver> {
    let mut zone = Zone::default();
    zone.set_namespace("ns", true);
    let address = |last| std::net::IpAddr::from([10, 43, 0, last]);
    let cluster = Service::Cluster { addresses: vec![address(9)], ports: Vec::new() };
    zone.set_service(&ObjectKey::new("ns", "web"), Some(cluster));
    let many = Service::Cluster { addresses: (0..200).map(address).collect(), ports: Vec::new() };
    zone.set_service(&ObjectKey::new("ns", "many"), Some(many));
    zone.set_service(
        &ObjectKey::new("ns", "out"),
        Some(Service::External("elsewhere.test".into())),
    );
    Arc::new(Resolver {
        zone: Arc::new(RwLock::new(zone)),
        domain: "cluster.local".into(),
        upstreams,
        clock: Arc::new(clock::SystemClock),
        requests: IntCounterVec::new(Opts::new("requests", "Requests."), &["proto"]).unwrap(),
    })
}

/// Serves on loopback until the test's runtime ends.
async fn serve(upstreams: Upstreams) -> SocketAddr {
    let listeners = Listeners::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = listeners.address().unwrap();
    let resolver = resolver(upstreams);
    drop(stdx::task::spawn("dns", async move {
        listeners.serve(resolver, &Shutdown::new()).await;
    }));
    address
}

async fn ask_udp(server: SocketAddr, query: &[u8]) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(query, server).await.unwrap();
    let mut answer = vec![0; 4096];
    let length = socket.recv(&mut answer).await.unwrap();
    Message::from_vec(&answer[..length]).unwrap()
}

async fn ask_tcp(server: SocketAddr, query: &[u8]) -> Message {
    let mut stream = TcpStream::connect(server).await.unwrap();
    stream.write_u16(u16::try_from(query.len()).unwrap()).await.unwrap();
    stream.write_all(query).await.unwrap();
    let length = stream.read_u16().await.unwrap();
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await.unwrap();
    Message::from_vec(&answer).unwrap()
}

#[tokio::test]
async fn names_of_the_cluster_are_answered_over_both() {
    let server = serve(Upstreams::new(Vec::new())).await;
    let web = query("Web.ns.svc.cluster.local.", RecordType::A);
    for answer in [ask_udp(server, &web).await, ask_tcp(server, &web).await] {
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
        assert!(answer.metadata.authoritative);
        let RData::A(address) = &answer.answers[0].data else { panic!() };
        assert_eq!(address.to_string(), "10.43.0.9");
    }
    let absent = ask_udp(server, &query("absent.ns.svc.cluster.local.", RecordType::A)).await;
    assert_eq!(absent.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(absent.authorities.len(), 1, "how long to remember it");
    let no_data = ask_udp(server, &query("web.ns.svc.cluster.local.", RecordType::AAAA)).await;
    assert_eq!(no_data.metadata.response_code, ResponseCode::NoError);
    assert!(no_data.answers.is_empty());
}

#[tokio::test]
async fn an_answer_that_is_too_long_for_udp_says_so() {
    let server = serve(Upstreams::new(Vec::new())).await;
    let many = query("many.ns.svc.cluster.local.", RecordType::A);
    assert!(ask_udp(server, &many).await.metadata.truncation);
    let whole = ask_tcp(server, &many).await;
    assert_eq!((whole.metadata.truncation, whole.answers.len()), (false, 200));
}

#[tokio::test]
async fn other_names_are_asked_of_other_resolvers() {
    let upstream = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let server = serve(Upstreams::new(vec![upstream.local_addr().unwrap()])).await;
    drop(stdx::task::spawn("upstream", async move {
        let mut question = vec![0; 512];
        loop {
            let (length, client) = upstream.recv_from(&mut question).await.unwrap();
            let asked = Message::from_vec(&question[..length]).unwrap();
            let name = asked.queries[0].name().clone();
            let mut answer = asked.into_response();
            let data = RData::A(hickory_proto::rr::rdata::A::new(192, 0, 2, 7));
            answer.add_answer(hickory_proto::rr::Record::from_rdata(name, 60, data));
            upstream.send_to(&answer.to_vec().unwrap(), client).await.unwrap();
        }
    }));
    let other = ask_udp(server, &query("example.test.", RecordType::A)).await;
    assert_eq!(other.answers.len(), 1);
    let alias = ask_udp(server, &query("out.ns.svc.cluster.local.", RecordType::A)).await;
    let kinds: Vec<RecordType> =
        alias.answers.iter().map(|record| record.data.record_type()).collect();
    assert_eq!(kinds, [RecordType::CNAME, RecordType::A]);
}

#[tokio::test]
async fn without_another_resolver_the_failure_is_said() {
    let server = serve(Upstreams::new(Vec::new())).await;
    let other = ask_udp(server, &query("example.test.", RecordType::A)).await;
    assert_eq!(other.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn nonsense_is_not_answered_and_does_no_harm() {
    let server = serve(Upstreams::new(Vec::new())).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for length in [0, 1, 11, 12, 40, 500] {
        socket.send_to(&vec![0xff; length], server).await.unwrap();
    }
    let web = query("web.ns.svc.cluster.local.", RecordType::A);
    assert_eq!(ask_udp(server, &web).await.answers.len(), 1);
}
