//! Between DNS messages and the names and values of the zone.

use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use crate::lookup::{Kind, Value};

/// Seconds that an answer may be kept: CoreDNS' default for cluster names.
const TTL_SECS: u32 = 5;
/// The longest UDP answer to a client that does not say what it takes.
const UDP_BYTES: u16 = 512;
/// The longest UDP answer to any client: the size that avoids fragments (DNS flag day 2020).
const UDP_BYTES_MAX: u16 = 1232;

/// A question that can be answered.
pub(crate) struct Question {
    message: Message,
    /// Lower case, without a trailing dot.
    pub(crate) name: String,
    pub(crate) kind: Kind,
}

impl Question {
    /// Reads a query.
    ///
    /// `Err` is the answer to a message that is no question for us; `None` in it means none.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, Option<Vec<u8>>> {
        let message = Message::from_vec(bytes).map_err(|_| None)?;
        let metadata = &message.metadata;
        if metadata.message_type != MessageType::Query {
            return Err(None);
        }
        let (id, op_code) = (metadata.id, metadata.op_code);
        let refuse = |code| Message::error_msg(id, op_code, code).to_vec().ok();
        if op_code != OpCode::Query {
            return Err(refuse(ResponseCode::NotImp));
        }
        let [query] = message.queries.as_slice() else {
            return Err(refuse(ResponseCode::FormErr));
        };
        if !matches!(query.query_class(), DNSClass::IN | DNSClass::ANY) {
            return Err(refuse(ResponseCode::Refused));
        }
        let name = query.name().to_ascii().trim_end_matches('.').to_ascii_lowercase();
        let kind = match query.query_type() {
            RecordType::A => Kind::A,
            RecordType::AAAA => Kind::Aaaa,
            RecordType::SRV => Kind::Srv,
            RecordType::PTR => Kind::Ptr,
            RecordType::TXT => Kind::Txt,
            RecordType::CNAME => Kind::Cname,
            RecordType::ANY => Kind::Any,
            _ => Kind::Other,
        };
        Ok(Self { message, name, kind })
    }

    /// The longest answer that the client takes over UDP.
    pub(crate) fn udp_bytes(&self) -> usize {
        let offered = self.message.edns.as_ref().map_or(UDP_BYTES, Edns::max_payload);
        usize::from(offered.clamp(UDP_BYTES, UDP_BYTES_MAX))
    }

    /// The same question about another name, for another resolver.
    pub(crate) fn about(&self, name: &str) -> Option<Vec<u8>> {
        let mut message = self.message.clone();
        let query = message.queries.first_mut()?;
        query.set_name(full_name(name)?);
        message.to_vec().ok()
    }

    /// An answer with records.
    pub(crate) fn found(
        &self,
        values: &[Value],
        extra: &[(String, IpAddr)],
        limit: usize,
    ) -> Option<Vec<u8>> {
        let mut answer = self.response(ResponseCode::NoError);
        let owner = self.message.queries.first()?.name().clone();
        for value in values {
            answer.add_answer(Record::from_rdata(owner.clone(), TTL_SECS, rdata(value)?));
        }
        for (name, address) in extra {
            let data = rdata(&Value::Address(*address))?;
            answer.add_additional(Record::from_rdata(full_name(name)?, TTL_SECS, data));
        }
        within(answer, limit)
    }

    /// An alias, followed by what the other resolver said of its target.
    pub(crate) fn alias(
        &self,
        target: &str,
        targets_answer: Option<&[u8]>,
        limit: usize,
    ) -> Option<Vec<u8>> {
        let mut answer = self.response(ResponseCode::NoError);
        let owner = self.message.queries.first()?.name().clone();
        let data = rdata(&Value::Cname(target.to_owned()))?;
        answer.add_answer(Record::from_rdata(owner, TTL_SECS, data));
        let targets_answer = targets_answer.and_then(|bytes| Message::from_vec(bytes).ok());
        if let Some(other) = targets_answer {
            answer.add_answers(other.answers);
        }
        within(answer, limit)
    }

    /// An answer without records: the name exists (`NoError`) or not (`NXDomain`). The SOA record
    /// tells how long that may be remembered.
    pub(crate) fn empty(&self, code: ResponseCode, domain: &str) -> Option<Vec<u8>> {
        let mut answer = self.response(code);
        let (zone, host) = (full_name(domain)?, full_name(&format!("ns.dns.{domain}"))?);
        let contact = full_name(&format!("hostmaster.{domain}"))?;
        let soa = SOA::new(host, contact, 1, 7200, 1800, 86400, TTL_SECS);
        answer.add_authority(Record::from_rdata(zone, TTL_SECS, RData::SOA(soa)));
        answer.to_vec().ok()
    }

    /// The answer when no resolver could be asked.
    pub(crate) fn failed(&self) -> Option<Vec<u8>> {
        self.response(ResponseCode::ServFail).to_vec().ok()
    }

    fn response(&self, code: ResponseCode) -> Message {
        let asked = &self.message;
        let mut answer = Message::response(asked.metadata.id, asked.metadata.op_code);
        answer.metadata.response_code = code;
        answer.metadata.authoritative = true;
        answer.metadata.recursion_desired = asked.metadata.recursion_desired;
        answer.metadata.recursion_available = true;
        answer.add_queries(asked.queries.iter().cloned());
        if asked.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(UDP_BYTES_MAX);
            answer.set_edns(edns);
        }
        answer
    }
}

/// The message, or as much of it as says that it does not fit.
fn within(message: Message, limit: usize) -> Option<Vec<u8>> {
    let bytes = message.to_vec().ok()?;
    if bytes.len() <= limit { Some(bytes) } else { message.truncate().to_vec().ok() }
}

fn rdata(value: &Value) -> Option<RData> {
    Some(match value {
        Value::Address(IpAddr::V4(address)) => RData::A(A(*address)),
        Value::Address(IpAddr::V6(address)) => RData::AAAA(AAAA(*address)),
        Value::Cname(name) => RData::CNAME(CNAME(full_name(name)?)),
        Value::Ptr(name) => RData::PTR(PTR(full_name(name)?)),
        Value::Srv(port, name) => RData::SRV(SRV::new(0, 100, *port, full_name(name)?)),
        Value::Txt(text) => RData::TXT(TXT::new(vec![text.clone()])),
    })
}

fn full_name(name: &str) -> Option<Name> {
    Name::from_ascii(format!("{name}.")).ok()
}
