//! Keys, and signatures that show who has them.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1, ECDSA_P256_SHA512_ASN1, ECDSA_P384_SHA256_ASN1,
    ECDSA_P384_SHA384_ASN1, ECDSA_P384_SHA512_ASN1, ECDSA_P521_SHA256_ASN1, ECDSA_P521_SHA384_ASN1,
    ECDSA_P521_SHA512_ASN1, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::FieldError;
use crate::node::{Findings, Node};

/// Upstream's limits, each of ten kibibytes.
const MAX_BYTES: usize = 10 * 1024;

/// A key that signers may be asked about.
enum Key {
    Ed25519,
    P256,
    P384,
    P521,
    Rsa,
}

/// What is wrong with a key.
enum Unfit {
    Curve,
    Modulus(usize),
    Unknown,
}

pub(super) fn decoded(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

/// The subject public key info of a PKCS#10 request.
pub(super) fn of_request(request: &[u8]) -> Option<Vec<u8>> {
    let (_, request) = X509CertificationRequest::from_der(request).ok()?;
    Some(request.certification_request_info.subject_pki.raw.to_vec())
}

/// A request signed with the key it is about.
pub(super) fn verify_request(field: &Node<'_>, out: &mut Findings) {
    let bytes = decoded(field.text()).unwrap_or_default();
    if bytes.len() > MAX_BYTES {
        out.push(FieldError::too_long(&field.path, MAX_BYTES));
        return;
    }
    let request = match X509CertificationRequest::from_der(&bytes) {
        Ok(([], request)) => request,
        _ => {
            out.push(field.invalid_text("must be a valid PKCS#10 CSR"));
            return;
        }
    };
    let info = &request.certification_request_info;
    let key = match fit(&info.subject_pki) {
        Ok(key) => key,
        Err(unfit) => {
            let detail = "elliptic public keys must use curve P256, P384, or P521";
            out.push(refusal(field, &unfit, field.invalid_text(detail)));
            return;
        }
    };
    let algorithm = algorithm(&key, &request.signature_algorithm.algorithm.to_id_string());
    let is_signed = algorithm.is_some_and(|algorithm| {
        let signature = &request.signature_value.data;
        is_valid(algorithm, &info.subject_pki, info.raw, signature)
    });
    if !is_signed {
        out.push(FieldError::invalid(&field.path, "", "invalid signature").without_value());
    }
}

/// A key, and a signature with it over the uid of the pod.
pub(super) fn verify_possession(
    field: &Node<'_>,
    proof: &Node<'_>,
    uid: &[u8],
    out: &mut Findings,
) {
    let [key, signature] = [field, proof].map(|text| decoded(text.text()).unwrap_or_default());
    for (bytes, field) in [(&key, field), (&signature, proof)] {
        if bytes.len() > MAX_BYTES {
            out.push(FieldError::too_long(&field.path, MAX_BYTES));
            return;
        }
    }
    let info = match SubjectPublicKeyInfo::from_der(&key) {
        Ok(([], info)) => info,
        _ => {
            out.push(field.invalid_text("must be a valid PKIX-serialized public key"));
            return;
        }
    };
    let algorithm: &dyn VerificationAlgorithm = match fit(&info) {
        Ok(Key::Ed25519) => &ED25519,
        Ok(Key::P256) => &ECDSA_P256_SHA256_ASN1,
        Ok(Key::P384) => &ECDSA_P384_SHA256_ASN1,
        Ok(Key::P521) => &ECDSA_P521_SHA256_ASN1,
        Ok(Key::Rsa) => &RSA_PSS_2048_8192_SHA256,
        Err(unfit) => {
            let detail = "elliptic public keys must use curve P256 or P384";
            let of_curve = FieldError::invalid(&field.path, "curve P-224", detail);
            out.push(refusal(field, &unfit, of_curve));
            return;
        }
    };
    if !is_valid(algorithm, &info, uid, &signature) {
        let detail = "could not verify proof-of-possession signature";
        out.push(FieldError::invalid(&proof.path, "", detail).without_value());
    }
}

/// What is said of an unfit key; of curves upstream says it in more than one way.
fn refusal(field: &Node<'_>, unfit: &Unfit, of_curve: FieldError) -> FieldError {
    match unfit {
        Unfit::Curve => of_curve,
        Unfit::Modulus(bits) => {
            let detail = "RSA keys must have modulus size 3072 or 4096";
            FieldError::invalid(&field.path, format!("{bits}-bit modulus"), detail)
        }
        Unfit::Unknown => field
            .invalid_text("unknown public key type; supported types are Ed25519, ECDSA, and RSA"),
    }
}

fn fit(info: &SubjectPublicKeyInfo<'_>) -> Result<Key, Unfit> {
    match info.algorithm.algorithm.to_id_string().as_str() {
        "1.3.101.112" => Ok(Key::Ed25519),
        "1.2.840.10045.2.1" => {
            let curve = info.algorithm.parameters.as_ref().and_then(|curve| curve.as_oid().ok());
            match curve.map(|curve| curve.to_id_string()).as_deref() {
                Some("1.2.840.10045.3.1.7") => Ok(Key::P256),
                Some("1.3.132.0.34") => Ok(Key::P384),
                Some("1.3.132.0.35") => Ok(Key::P521),
                _ => Err(Unfit::Curve),
            }
        }
        "1.2.840.113549.1.1.1" => match info.parsed() {
            // Upstream counts whole bytes.
            Ok(PublicKey::RSA(rsa)) => match rsa.key_size().next_multiple_of(8) {
                3072 | 4096 => Ok(Key::Rsa),
                bits => Err(Unfit::Modulus(bits)),
            },
            _ => Err(Unfit::Unknown),
        },
        _ => Err(Unfit::Unknown),
    }
}

/// How a request of this key and algorithm is verified.
fn algorithm(key: &Key, oid: &str) -> Option<&'static dyn VerificationAlgorithm> {
    Some(match (key, oid) {
        (Key::Ed25519, "1.3.101.112") => &ED25519,
        (Key::P256, "1.2.840.10045.4.3.2") => &ECDSA_P256_SHA256_ASN1,
        (Key::P256, "1.2.840.10045.4.3.3") => &ECDSA_P256_SHA384_ASN1,
        (Key::P256, "1.2.840.10045.4.3.4") => &ECDSA_P256_SHA512_ASN1,
        (Key::P384, "1.2.840.10045.4.3.2") => &ECDSA_P384_SHA256_ASN1,
        (Key::P384, "1.2.840.10045.4.3.3") => &ECDSA_P384_SHA384_ASN1,
        (Key::P384, "1.2.840.10045.4.3.4") => &ECDSA_P384_SHA512_ASN1,
        (Key::P521, "1.2.840.10045.4.3.2") => &ECDSA_P521_SHA256_ASN1,
        (Key::P521, "1.2.840.10045.4.3.3") => &ECDSA_P521_SHA384_ASN1,
        (Key::P521, "1.2.840.10045.4.3.4") => &ECDSA_P521_SHA512_ASN1,
        (Key::Rsa, "1.2.840.113549.1.1.11") => &RSA_PKCS1_2048_8192_SHA256,
        (Key::Rsa, "1.2.840.113549.1.1.12") => &RSA_PKCS1_2048_8192_SHA384,
        (Key::Rsa, "1.2.840.113549.1.1.13") => &RSA_PKCS1_2048_8192_SHA512,
        _ => return None,
    })
}

fn is_valid(
    algorithm: &'static dyn VerificationAlgorithm,
    info: &SubjectPublicKeyInfo<'_>,
    message: &[u8],
    signature: &[u8],
) -> bool {
    let key = UnparsedPublicKey::new(algorithm, &*info.subject_public_key.data);
    key.verify(message, signature).is_ok()
}
