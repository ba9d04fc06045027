// kube.mjs: as much of kubectl as a review app needs, without any packages.
//
//   node kube.mjs namespace          prints the namespace that the kubeconfig names
//   node kube.mjs apply FILE         applies a manifest, as kubectl apply --server-side does
//   node kube.mjs rollout NAME       waits until a deployment's pods are ready
//   node kube.mjs stop               deletes the namespace, with all that is in it, and waits
//
// KUBECONFIG is one that podlane has granted: JSON, and a file with a token
// that is read anew for each request, for it changes while the job runs.
import { readFileSync } from 'node:fs'
import { request } from 'node:https'
import { setTimeout as sleep } from 'node:timers/promises'

const file = process.env.KUBECONFIG
if (!file) throw new Error('KUBECONFIG is not set: was this job granted review-cluster?')
const config = JSON.parse(readFileSync(file, 'utf8'))
const { server, 'certificate-authority-data': ca } = config.clusters[0].cluster
const { tokenFile } = config.users[0].user
const { namespace } = config.contexts[0].context

const places = {
  'v1/Namespace': '/api/v1/namespaces',
  'v1/ResourceQuota': '/api/v1/namespaces/NS/resourcequotas',
  'v1/Service': '/api/v1/namespaces/NS/services',
  'apps/v1/Deployment': '/apis/apps/v1/namespaces/NS/deployments',
  'networking.k8s.io/v1/Ingress': '/apis/networking.k8s.io/v1/namespaces/NS/ingresses',
  'networking.k8s.io/v1/NetworkPolicy': '/apis/networking.k8s.io/v1/namespaces/NS/networkpolicies',
  'rbac.authorization.k8s.io/v1/RoleBinding': '/apis/rbac.authorization.k8s.io/v1/namespaces/NS/rolebindings',
}

function ask(method, path, body, type) {
  return new Promise((resolve, reject) => {
    const headers = { authorization: 'Bearer ' + readFileSync(tokenFile, 'utf8').trim(), accept: 'application/json' }
    if (type) headers['content-type'] = type
    const options = { method, headers, timeout: 30_000, ca: ca && Buffer.from(ca, 'base64') }
    const req = request(server + path, options, (res) => {
      let text = ''
      res.setEncoding('utf8').on('data', (part) => (text += part)).on('end', () => resolve({ status: res.statusCode, answer: text && JSON.parse(text) }))
    })
    req.on('timeout', () => req.destroy(new Error('no answer within 30 s'))).on('error', reject).end(body)
  })
}

async function must(method, path, body, type) {
  const { status, answer } = await ask(method, path, body, type)
  if (status >= 300) throw new Error(`${method} ${path}: ${status} ${answer.message}`)
  return answer
}

// scalar finds the value of a key that stands alone on its line.
const scalar = (text, key) => text.match(new RegExp(`^${key}: *"?([^\\s"]+)`, 'm'))?.[1]

async function apply(manifest) {
  for (const text of manifest.split(/^---$/m)) {
    const kind = scalar(text, 'kind')
    if (!kind) continue
    const name = scalar(text, '  name')
    const place = places[`${scalar(text, 'apiVersion')}/${kind}`]
    if (!place) throw new Error(`${kind} ${name}: this kind is not known here`)
    const path = `${place.replace('NS', namespace)}/${name}?fieldManager=review&force=true`
    // A right that was given a moment ago may not have reached everybody.
    for (let tries = 60; ; tries--) {
      const { status, answer } = await ask('PATCH', path, text, 'application/apply-patch+yaml')
      if (status < 300) break
      if (status !== 403 || tries === 0) throw new Error(`apply ${kind} ${name}: ${status} ${answer.message}`)
      await sleep(500)
    }
    console.log(`applied ${kind} ${name}`)
  }
}

async function rollout(name) {
  const path = places['apps/v1/Deployment'].replace('NS', namespace) + '/' + name
  const deadline = Date.now() + 180_000
  for (let said; ; await sleep(500)) {
    const { metadata, spec, status = {} } = await must('GET', path)
    const { updatedReplicas = 0, availableReplicas = 0, replicas = 0 } = status
    const seen = status.observedGeneration >= metadata.generation
    if (seen && updatedReplicas === spec.replicas && availableReplicas === spec.replicas && replicas === spec.replicas) break
    const now = `${name}: ${availableReplicas} of ${spec.replicas} pods are ready`
    if (now !== said) console.log(now)
    said = now
    if (Date.now() > deadline) {
      await explain()
      throw new Error(`${name} is not ready after 3 minutes`)
    }
  }
  console.log(`${name} is ready`)
}

async function explain() {
  const { items } = await must('GET', `/api/v1/namespaces/${namespace}/events`)
  for (const event of items.slice(-10)) console.log(`${event.involvedObject.kind} ${event.involvedObject.name}: ${event.message}`)
}

async function stop() {
  const path = '/api/v1/namespaces/' + namespace
  const { status, answer } = await ask('DELETE', path)
  if (status === 404) return console.log(`namespace ${namespace} is gone already`)
  if (status >= 300) throw new Error(`delete namespace ${namespace}: ${status} ${answer.message}`)
  const deadline = Date.now() + 180_000
  while ((await ask('GET', path)).status !== 404) {
    if (Date.now() > deadline) throw new Error(`namespace ${namespace} is still there after 3 minutes`)
    await sleep(500)
  }
  console.log(`namespace ${namespace} is gone, with all that was in it`)
}

const [command, argument] = process.argv.slice(2)
switch (command) {
  case 'namespace':
    console.log(namespace)
    break
  case 'apply':
    await apply(readFileSync(argument, 'utf8'))
    break
  case 'rollout':
    await rollout(argument)
    break
  case 'stop':
    await stop()
    break
  default:
    throw new Error(`no command ${command}: see the top of this file`)
}
