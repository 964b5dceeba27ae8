import { createRequire } from "node:module";

const FONTS = ["DejaVuSans.ttf", "DejaVuSans-Bold.ttf"];

/** An SVG as PNG at twice its size, with text in DejaVu Sans whatever fonts the machine has. Resvg is loaded at the first one. */
export async function renderPng(svg: string, zoom = 2): Promise<Uint8Array> {
  const { Resvg } = await import("@resvg/resvg-js");
  const require = createRequire(import.meta.url);
  const fontFiles = FONTS.map((file) => require.resolve(`dejavu-fonts-ttf/ttf/${file}`));
  const font = { loadSystemFonts: false, fontFiles, defaultFontFamily: "DejaVu Sans", sansSerifFamily: "DejaVu Sans" };
  return new Resvg(svg, { font, fitTo: { mode: "zoom", value: zoom } }).render().asPng();
}
