import assert from "node:assert/strict";
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { DaemonSet, Deployment, StatefulSet } from "kubernetes-models/apps/v1";
import { NetworkPolicy } from "kubernetes-models/networking.k8s.io/v1";
import { PodDisruptionBudget } from "kubernetes-models/policy/v1";
import { Namespace, Service } from "kubernetes-models/v1";
import { parse, parseAllDocuments } from "yaml";

const directory = new URL("../k8s/", import.meta.url);
const kinds = { DaemonSet, Deployment, StatefulSet, NetworkPolicy, PodDisruptionBudget, Namespace, Service };

interface Manifest {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { readonly name: string };
  readonly spec?: unknown;
}

/**
 * The published validators accept fields they do not know. They read every field they do know, so a proxy that records what was
 * read finds the others: a misspelt field is one that nobody asked for.
 */
function recordReads(value: unknown, path: string, unread: Set<string>): unknown {
  if (value === null || typeof value !== "object") return value;
  const children = new Map<string, unknown>();
  for (const [key, child] of Object.entries(value)) {
    const childPath = `${path}/${key}`;
    if (!Array.isArray(value)) unread.add(childPath);
    children.set(key, recordReads(child, childPath, unread));
  }
  return new Proxy(value, {
    get(target, key) {
      if (typeof key === "string" && children.has(key)) {
        unread.delete(`${path}/${key}`);
        return children.get(key);
      }
      return Reflect.get(target, key) as unknown;
    },
  });
}

/** Problems of one manifest: what the schema says, and fields that the schema does not have. */
function problemsOf(manifest: Manifest): string[] {
  const Model = kinds[manifest.kind as keyof typeof kinds] as { apiVersion: string; prototype: { validate(): void } } | undefined;
  if (Model === undefined) return [`unknown kind ${manifest.kind}`];
  if (Model.apiVersion !== manifest.apiVersion) return [`apiVersion ${manifest.apiVersion} instead of ${Model.apiVersion}`];
  const unread = new Set<string>();
  const recorded = recordReads(manifest, "", unread);
  try {
    // Called on the manifest itself: the constructor would copy it, and so read every field.
    Model.prototype.validate.call(recorded);
  } catch (error) {
    return [String(error)];
  }
  return [...unread].map((path) => `no such field ${path}`);
}

const files = readdirSync(directory).filter((name) => name.endsWith(".yaml") && name !== "kustomization.yaml");
const manifests = files.flatMap((file) =>
  parseAllDocuments(readFileSync(new URL(file, directory), "utf8"), { merge: true }).map((document) => {
    const manifest = document.toJS() as Manifest;
    return { file, manifest };
  }),
);

describe("kubernetes manifests", () => {
  for (const { file, manifest } of manifests) {
    it(`${file}: ${manifest.kind} ${manifest.metadata.name} has every required field and no unknown one`, () => {
      assert.deepEqual(problemsOf(manifest), []);
    });
  }

  it("the check itself refuses unknown, missing and mistyped fields at any depth", () => {
    const worker = manifests.find(
      ({ manifest }) => manifest.kind === "Deployment" && manifest.metadata.name === "worker",
    )?.manifest;
    assert.ok(worker);
    type Editable = {
      spec: { template: { spec: { containers: Record<string, unknown>[] } }; selector?: unknown; replicas: unknown };
    };
    const broken = (edit: (copy: Editable) => void): string[] => {
      const copy = structuredClone(worker) as unknown as Editable;
      edit(copy);
      return problemsOf(copy as unknown as Manifest);
    };
    assert.match(broken((copy) => (copy.spec.template.spec.containers[0]!["imagePullPolcy"] = "Always")).join(), /imagePullPolcy/);
    assert.match(broken((copy) => delete copy.spec.selector).join(), /selector/);
    assert.match(broken((copy) => (copy.spec.replicas = "two")).join(), /replicas/);
  });

  it("the kustomization names every manifest and no file that is missing", () => {
    const kustomization = parse(readFileSync(new URL("kustomization.yaml", directory), "utf8")) as { resources: string[] };
    assert.deepEqual([...kustomization.resources].sort(), [...files].sort());
    for (const resource of kustomization.resources) assert.ok(existsSync(new URL(resource, directory)), resource);
  });
});
