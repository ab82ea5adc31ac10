// Run by 'flux policy build' with the address of componentize-js, the source, the interface and the file to write.
const [address, sourcePath, witPath, out] = process.argv.slice(2);
const { componentize } = await import(address);
const { writeFile } = await import('node:fs/promises');
// nothing of the outside world: a policy has what flux:policy gives it, and no more
const disableFeatures = ['random', 'stdio', 'clocks', 'http', 'fetch-event'];
const { component } = await componentize({ sourcePath, witPath, worldName: 'policy', disableFeatures });
await writeFile(out, component);
