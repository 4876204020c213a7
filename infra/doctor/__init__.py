"""Before an `up`: what it needs of account, region, quota, tools and artifacts; each finding with its fix."""
