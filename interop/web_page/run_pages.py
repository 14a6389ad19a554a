"""The pages of runs in a browser: what they show, how they look, and their buttons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from tests.running import eventually

#: Seconds until a page shows what it has to.
DEADLINE = 30.0

#: Texts whose contrast to what is behind them is below 4.5 (below 3 for large ones), and the contrast.
_FAINT = """
const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true})
const parts = color => {
  canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1)
  return [...canvas.getImageData(0, 0, 1, 1).data]
}
const light = ([r, g, b]) => [r, g, b].map(c => c / 255)
  .map(c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
  .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0)
const behind = element => {
  const box = element.closest('.box')
  if (box) return parts(getComputedStyle(box.querySelector('.body')).fill)
  for (let each = element; each; each = each.parentElement) {
    const color = parts(getComputedStyle(each).backgroundColor)
    if (color[3] > 250) return color
  }
  return [255, 255, 255]
}
const faint = []
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
while (texts.nextNode()) {
  const element = texts.currentNode.parentElement, style = getComputedStyle(element)
  const isSeen = element.getClientRects().length && !element.closest('.unseen, noscript')
  if (!texts.currentNode.data.trim() || !isSeen) continue
  const color = parts(element.namespaceURI.endsWith('svg') ? style.fill : style.color)
  const [one, two] = [light(color), light(behind(element))]
  const contrast = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05)
  const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700)
  if (contrast < (large ? 3 : 4.5)) faint.push(`${texts.currentNode.data.trim()}: ${contrast.toFixed(2)}`)
}
return faint
"""


@attrs.define
class RunPages:
    """Opens pages and looks at them.

    Parameters:
      root: The address of the list of runs.
      shots: Folder of screenshots.
    """

    driver: Chrome
    root: str
    shots: Path

    def open(self, path: str) -> None:
        """Open a page; it must be there."""
        self.driver.get(self.root + path)
        status = self.script("return performance.getEntriesByType('navigation')[0].responseStatus")
        assert status == 200, self.text("body")

    def script(self, code: str) -> Any:
        """Run a script in the page, and return what it returns."""
        return self.driver.execute_script(code)

    def command(self, name: str, **parameters: Any) -> None:
        """Send a command to the browser itself."""
        self.driver.execute_cdp_cmd(name, parameters)

    def text(self, css: str) -> str:
        """The text of an element, as it is seen."""
        return str(self.driver.find_element(By.CSS_SELECTOR, css).text)

    def press(self, css: str) -> None:
        """Click on an element."""
        element = self.driver.find_element(By.CSS_SELECTOR, css)
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()

    def write(self, css: str, text: str) -> None:
        """Write into a field."""
        self.driver.find_element(By.CSS_SELECTOR, css).send_keys(text)

    def sees(self, css: str, text: str) -> None:
        """Wait until an element has a text."""

        def is_seen() -> bool:
            code = "return [...document.querySelectorAll(arguments[0])].map(each => each.innerText).join(' ')"
            return text in str(self.driver.execute_script(code, css))

        eventually(is_seen, DEADLINE, f"{text!r} in {css} at {self.driver.current_url}")

    def look(self, scheme: str, width: int) -> None:
        """Show pages light or dark, and as wide."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        # An animation would never stand still.
        features.append({"name": "prefers-reduced-motion", "value": "reduce"})
        self.command("Emulation.setEmulatedMedia", features=features)
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 700
        )

    def shot(self, name: str) -> None:
        """Keep what the page looks like, down to its end."""
        height = self.script("return document.documentElement.scrollHeight")
        width = self.script("return innerWidth")
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 700}
        self.command("Emulation.setDeviceMetricsOverride", **metrics)
        (self.shots / f"{name}.png").write_bytes(self.driver.get_screenshot_as_png())

    def overflow(self) -> int:
        """Pixels by which the page is wider than the window."""
        return int(self.script("return document.documentElement.scrollWidth - innerWidth"))

    def faint(self) -> list[str]:
        """Texts without enough contrast."""
        return list(self.script(_FAINT))

    def complaints(self) -> list[str]:
        """Errors in the browser's console since the last call: of scripts, and of refused contents."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]
