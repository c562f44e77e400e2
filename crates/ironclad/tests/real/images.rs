//! Images made of Debian's packages.

use std::path::Path;

use testkit::ImageBuilder;

/// `nginx:NAME`, serving `body` on port 80.
pub(crate) fn nginx(tag: &str, body: &str) -> Vec<u8> {
    let mut image = ImageBuilder::new(
        &format!("nginx:{tag}"),
        &["/usr/sbin/nginx", "-c", "/etc/nginx.conf", "-g", "daemon off;"],
    );
    image.file(Path::new("/usr/sbin/nginx"), "/usr/sbin/nginx").unwrap();
    libraries(&mut image, "/usr/sbin/nginx");
    shell(&mut image);
    let config = "user root; error_log /dev/stderr; pid /tmp/nginx.pid;\n\
        events {}\n\
        http {\n  access_log /dev/stdout;\n  server {\n    listen 80;\n    root /srv;\n  }\n}\n";
    image.text("/etc/nginx.conf", config).unwrap();
    image.text("/srv/index.html", body).unwrap();
    image.directory("/var/lib/nginx").unwrap();
    image.directory("/var/log/nginx").unwrap();
    image.directory("/tmp").unwrap();
    accounts(&mut image);
    image.build().unwrap()
}

/// `busybox:1`, with a shell.
pub(crate) fn busybox() -> Vec<u8> {
    let mut image = ImageBuilder::new("busybox:1", &["/bin/sh"]);
    shell(&mut image);
    image.directory("/tmp").unwrap();
    accounts(&mut image);
    image.build().unwrap()
}

fn shell(image: &mut ImageBuilder) {
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].map(Path::new);
    let busybox = busybox.into_iter().find(|path| path.exists()).unwrap();
    for applet in
        ["sh", "cat", "echo", "ls", "sleep", "tar", "wget", "nslookup", "env", "tty", "kill"]
    {
        image.file(busybox, &format!("/bin/{applet}")).unwrap();
    }
}

fn accounts(image: &mut ImageBuilder) {
    let users = "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n";
    image.text("/etc/passwd", users).unwrap();
    image.text("/etc/group", "root:x:0:\nnogroup:x:65534:\n").unwrap();
}

fn libraries(image: &mut ImageBuilder, program: &str) {
    let output = testkit::command("ldd").arg(program).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for word in text.split_whitespace().filter(|word| word.starts_with('/')) {
        image.file(Path::new(word), word).unwrap();
    }
}
