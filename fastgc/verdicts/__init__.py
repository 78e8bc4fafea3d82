"""From gradient and gradapprox to a verdict, with second looks at what is open."""
