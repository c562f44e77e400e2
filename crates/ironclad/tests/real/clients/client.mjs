// The JavaScript client: typed calls, a watch, exec. Prints what it saw as JSON.
import { createRequire } from 'node:module';
import { Writable } from 'node:stream';

// The packages are installed elsewhere: NODE_PATH says where.
const require = createRequire(`${process.env.NODE_PATH}/`);
const k8s = require('@kubernetes/client-node');

const [kubeconfig, pod] = process.argv.slice(2);
const namespace = 'default';
const config = new k8s.KubeConfig();
config.loadFromFile(kubeconfig);
const core = config.makeApiClient(k8s.CoreV1Api);

const seen = {};
seen.version = (await config.makeApiClient(k8s.VersionApi).getCode()).gitVersion;

const listed = await core.listNamespacedConfigMap({ namespace });
const query = {
    resourceVersion: listed.metadata.resourceVersion,
    fieldSelector: 'metadata.name=javascript',
};
seen.events = [];
let end;
const ended = new Promise((resolve) => (end = resolve));
const watch = new k8s.Watch(config);
const request = await watch.watch(
    `/api/v1/namespaces/${namespace}/configmaps`,
    query,
    (type, object) => {
        seen.events.push([type, object.data ?? null]);
        if (type === 'DELETED') end();
    },
    (error) => end(error),
);
const name = 'javascript';
await core.createNamespacedConfigMap({ namespace, body: { metadata: { name }, data: { a: '1' } } });
const found = await core.readNamespacedConfigMap({ namespace, name });
found.data.b = '2';
await core.replaceNamespacedConfigMap({ namespace, name, body: found });
try {
    await core.createNamespacedConfigMap({ namespace, body: { metadata: { name } } });
    seen.exists = null;
} catch (error) {
    seen.exists = [error.code, JSON.parse(error.body).reason];
}
await core.deleteNamespacedConfigMap({ namespace, name });
await ended;
request.abort();

const collect = () => {
    const chunks = [];
    const sink = new Writable({
        write(chunk, _encoding, done) {
            chunks.push(chunk);
            done();
        },
    });
    return [sink, () => Buffer.concat(chunks).toString()];
};
const [out, output] = collect();
const [err, errors] = collect();
const command = ['/testkit-pod', 'print', 'from', 'javascript'];
seen.status = await new Promise((resolve) => {
    const exec = new k8s.Exec(config);
    exec.exec(namespace, pod, 'c', command, out, err, null, false, (status) => resolve(status.status));
});
seen.exec = [output(), errors()];
console.log(JSON.stringify(seen));
process.exit(0);
