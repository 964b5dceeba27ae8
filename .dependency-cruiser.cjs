/** Package boundaries and cycles: core and protocol depend on nothing of ours, the coordinator never carries the engine. */
module.exports = {
  forbidden: [
    { name: "no-cycles", severity: "error", from: {}, to: { circular: true } },
    {
      name: "core-is-pure",
      severity: "error",
      from: { path: "^packages/core/src" },
      to: { path: "^(packages/(?!core/)|services/)" },
    },
    {
      name: "core-has-no-network-or-disk",
      severity: "error",
      from: { path: "^packages/core/src" },
      to: { dependencyTypes: ["core"], path: "^(fs|fs/promises|net|http|http2|child_process|worker_threads)$" },
    },
    {
      name: "protocol-is-alone",
      severity: "error",
      from: { path: "^packages/protocol/src" },
      to: { path: "^(packages/(?!protocol/)|services/)" },
    },
    {
      name: "engine-knows-only-core",
      severity: "error",
      from: { path: "^packages/engine/src" },
      to: { path: "^(packages/(?!(engine|core)/)|services/)" },
    },
    {
      name: "report-knows-only-core",
      severity: "error",
      from: { path: "^packages/report/src" },
      to: { path: "^(packages/(?!(report|core)/)|services/)" },
    },
    {
      name: "coordinator-never-imports-the-engine",
      severity: "error",
      from: { path: "^services/coordinator/" },
      to: { path: "^packages/engine/" },
    },
    {
      name: "services-do-not-import-each-other",
      severity: "error",
      from: { path: "^services/([^/]+)/" },
      to: { path: "^services/(?!$1/)" },
    },
    { name: "packages-do-not-import-services", severity: "error", from: { path: "^packages/" }, to: { path: "^services/" } },
    {
      name: "no-deep-imports",
      severity: "error",
      from: { path: "^(packages|services)/([^/]+)/" },
      to: { path: "^packages/(?!$2/)[^/]+/src/(?!index\\.ts)" },
    },
  ],
  options: {
    doNotFollow: { path: "node_modules|/dist/" },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: "tsconfig.eslint.json" },
    enhancedResolveOptions: { conditionNames: ["segue-source", "import", "node", "default"], exportsFields: ["exports"] },
  },
};
